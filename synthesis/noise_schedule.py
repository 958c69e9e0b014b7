"""How much of a face is left at every moment, and how much each moment counts.

A face x at moment t is ``sqrt(kept) x + sqrt(1 - kept) noise``; the network predicts the velocity
``v = sqrt(kept) noise - sqrt(1 - kept) x`` (Salimans & Ho, 2022, doi:10.48550/arXiv.2202.00512).
The cosine course (Nichol & Dhariwal, 2021) is stretched so that nothing is kept at the end (Lin
et al., 2024, arXiv:2305.08891): sampling starts from pure noise, and so must training.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DDIMScheduler, UniPCMultistepScheduler
from torch import Tensor

from warehouse.errors import ModelError

NUM_TRAIN_TIMESTEPS = 1000

GAMMA = 5.0
"""Signal-to-noise ratio above which moments count less (Hang et al., 2023, arXiv:2303.09556)."""


_COURSE: dict[str, Any] = {
    "num_train_timesteps": NUM_TRAIN_TIMESTEPS,
    "beta_schedule": "squaredcos_cap_v2",
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
}


def training_scheduler() -> DDIMScheduler:
    """The course of noise that the network is trained on."""
    return DDIMScheduler(**_COURSE, clip_sample=True)


def sampling_scheduler() -> UniPCMultistepScheduler:
    """What draws: of the solvers in ``tests.benchmarks.solvers`` the nearest in ten steps."""
    return UniPCMultistepScheduler(**_COURSE)


def alphas_cumprod() -> Tensor:
    """float32[MOMENTS]: the share of the face's variance that is left, 1 down to exactly 0."""
    left: Tensor = vars(training_scheduler())["alphas_cumprod"]
    return left.float()


def loss_weight(kept: Tensor) -> Tensor:
    """How much a squared error of v counts at each moment, in 0..1.

    On the error of x, v-prediction weighs by ``snr + 1``. Min-SNR caps the ratio at GAMMA; capping
    the whole weight, ``min(snr, GAMMA) + 1``, gives on v ``min(1, (GAMMA + 1) * (1 - kept))``. The
    often copied ``min(snr, GAMMA) / (snr + 1)`` is zero where nothing is kept, so that the first
    step of sampling would never be learned.
    """
    return ((GAMMA + 1) * (1 - kept)).clamp(max=1)


def add_noise(face: Tensor, noise: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
    """The noisy face and the velocity there; ``kept`` float[n] per row."""
    signal, sigma = _factors(kept, face)
    return signal * face + sigma * noise, signal * noise - sigma * face


def predict_x0(noisy: Tensor, velocity: Tensor, kept: Tensor) -> Tensor:
    """The face that a velocity points to."""
    signal, sigma = _factors(kept, noisy)
    return signal * noisy - sigma * velocity


def _factors(kept: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    kept = kept.view(-1, *[1] * (like.ndim - 1))
    return torch.sqrt(kept), torch.sqrt(1 - kept)


@dataclass(frozen=True)
class NoiseLevels:
    """How much of a picture is left at every timestep, and what the network's answer means.

    Attributes:
        signal: float64[T], the factor of the clean picture, sqrt of alpha-bar.
        sigma: float64[T], the factor of the noise; ``signal² + sigma² = 1``.
        prediction_type: ``epsilon``, ``sample`` or ``v_prediction``.
    """

    signal: Tensor
    sigma: Tensor
    prediction_type: str

    @classmethod
    def of(cls, scheduler: Any) -> NoiseLevels:
        """The levels of a scheduler of diffusers.

        Raises:
            ModelError: it has none (flow matching), or predicts something unheard of.
        """
        kept = getattr(scheduler, "alphas_cumprod", None)
        kind = getattr(scheduler.config, "prediction_type", "epsilon")
        if kept is None or kind not in ("epsilon", "sample", "v_prediction"):
            raise ModelError(
                "a variance-preserving scheduler that predicts epsilon, sample or velocity",
                got=f"{type(scheduler).__name__} with {kind}",
                hint="give DDIMScheduler, DPMSolverMultistepScheduler or UniPCMultistepScheduler",
            )
        kept = torch.as_tensor(kept).detach().cpu().double()
        return cls(kept.sqrt(), (1 - kept).sqrt(), kind)

    def __len__(self) -> int:
        return len(self.signal)

    def at(self, timestep: int) -> tuple[float, float]:
        """Signal and sigma; timestep -1 is the clean picture."""
        if timestep < 0:
            return 1.0, 0.0
        return float(self.signal[timestep]), float(self.sigma[timestep])

    def velocity(self, answer: Tensor, noisy: Tensor, timestep: int) -> Tensor:
        """``signal * noise - sigma * clean`` from what the network answered at ``noisy``."""
        signal, sigma = self.at(timestep)
        if self.prediction_type == "v_prediction":
            return answer
        if self.prediction_type == "sample":
            return (signal * noisy - answer) / max(sigma, _LEAST)
        return (answer - sigma * noisy) / max(signal, _LEAST)

    def clean(self, answer: Tensor, noisy: Tensor, timestep: int) -> Tensor:
        """The picture that the network sees behind the noise."""
        signal, sigma = self.at(timestep)
        return signal * noisy - sigma * self.velocity(answer, noisy, timestep)

    def mix(self, clean: Tensor, drawn: Tensor, timestep: int) -> Tensor:
        """``clean`` with ``drawn`` noise at a timestep."""
        signal, sigma = self.at(timestep)
        return signal * clean + sigma * drawn

    def turn(self, noisy: Tensor, answer: Tensor, timestep: int, to: int) -> Tensor:
        """One DDIM step (Song et al., 2021, eq. 12 with eta 0) from ``timestep`` to ``to``."""
        keep, add = self._ddim(timestep, to)
        return keep * noisy + add * answer

    def ddim_step_inverse(self, cleaner: Tensor, answer: Tensor, timestep: int, to: int) -> Tensor:
        """From what picture at ``timestep`` ``turn`` would lead to ``cleaner`` at ``to``.

        Exact if ``answer`` is the network's at the picture returned; the caller iterates.
        """
        keep, add = self._ddim(timestep, to)
        # Nothing is kept where a picture comes from its prediction alone.
        return (cleaner - add * answer) / max(keep, _LEAST)

    def _ddim(self, timestep: int, to: int) -> tuple[float, float]:
        """What a step keeps of the picture and adds of the answer.

        Written in the network's own terms: translated into another prediction, the answer would
        depend on the picture twice and the iteration of an inversion would run away.
        """
        (signal, sigma), (to_signal, to_sigma) = self.at(timestep), self.at(to)
        if self.prediction_type == "v_prediction":
            return to_signal * signal + to_sigma * sigma, to_sigma * signal - to_signal * sigma
        if self.prediction_type == "sample":
            keep = to_sigma / max(sigma, _LEAST)
            return keep, to_signal - keep * signal
        keep = to_signal / max(signal, _LEAST)
        return keep, to_sigma - keep * sigma


_LEAST = 1e-4
