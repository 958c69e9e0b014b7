"""Noise schedules: of training, and of any scheduler of diffusers.

A noisy face is ``sqrt(alphas_cumprod) x0 + sqrt(1 - alphas_cumprod) noise``. The network predicts
the velocity ``v = sqrt(alphas_cumprod) noise - sqrt(1 - alphas_cumprod) x0`` (Salimans & Ho, 2022,
doi:10.48550/arXiv.2202.00512). The cosine schedule (Nichol & Dhariwal, 2021) is rescaled to zero
terminal signal-to-noise ratio (Lin et al., 2024, arXiv:2305.08891): sampling starts from pure
noise, so training must reach it too.
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
"""Signal-to-noise ratio above which a timestep's loss is weighted down (Min-SNR, Hang et al.,
2023, arXiv:2303.09556)."""

_LEAST = 1e-4
"""Smallest divisor."""

_CONFIG: dict[str, Any] = {
    "num_train_timesteps": NUM_TRAIN_TIMESTEPS,
    "beta_schedule": "squaredcos_cap_v2",
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
}


def training_scheduler() -> DDIMScheduler:
    """Return the scheduler that defines the noise of training."""
    return DDIMScheduler(**_CONFIG, clip_sample=True)


def sampling_scheduler() -> UniPCMultistepScheduler:
    """Return the default solver, best at ten steps in ``benchmarks.solvers``."""
    return UniPCMultistepScheduler(**_CONFIG)


def alphas_cumprod() -> Tensor:
    """Return float32[NUM_TRAIN_TIMESTEPS], falling from almost 1 to exactly 0."""
    cumulative: Tensor = vars(training_scheduler())["alphas_cumprod"]
    return cumulative.float()


def loss_weight(alphas_cumprod: Tensor) -> Tensor:
    """Return the weight in 0..1 of a squared error of v at each timestep.

    Relative to the error of x0, v-prediction weighs by ``snr + 1``. Capping the whole weight,
    ``min(snr, GAMMA) + 1``, gives ``min(1, (GAMMA + 1) * (1 - alphas_cumprod))`` for v. The
    common ``min(snr, GAMMA) / (snr + 1)`` is zero at zero signal, so the first sampling step
    would never be trained.
    """
    return ((GAMMA + 1) * (1 - alphas_cumprod)).clamp(max=1)


def add_noise(face: Tensor, noise: Tensor, alphas_cumprod: Tensor) -> tuple[Tensor, Tensor]:
    """Return noisy faces and velocities; ``alphas_cumprod`` is float[n]."""
    signal, sigma = _factors(alphas_cumprod, face)
    return signal * face + sigma * noise, signal * noise - sigma * face


def predict_x0(noisy: Tensor, velocity: Tensor, alphas_cumprod: Tensor) -> Tensor:
    """Return the clean face that a velocity implies."""
    signal, sigma = _factors(alphas_cumprod, noisy)
    return signal * noisy - sigma * velocity


def _factors(alphas_cumprod: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    alphas_cumprod = alphas_cumprod.view(-1, *[1] * (like.ndim - 1))
    return torch.sqrt(alphas_cumprod), torch.sqrt(1 - alphas_cumprod)


@dataclass(frozen=True)
class NoiseLevels:
    """Signal and noise at every timestep, and what the network predicts.

    Translates between the prediction types (Salimans & Ho, 2022, section 2.4), which is all that
    guidance and inversion need from a scheduler.

    Attributes:
        signal: float64[T], the factor of the clean image, ``sqrt(alphas_cumprod)``.
        sigma: float64[T], the factor of the noise; ``signal² + sigma² = 1``.
        prediction_type: ``epsilon``, ``sample`` or ``v_prediction``.
    """

    signal: Tensor
    sigma: Tensor
    prediction_type: str

    @classmethod
    def of(cls, scheduler: Any) -> NoiseLevels:
        """Read the noise levels of a scheduler of diffusers.

        Raises:
            ModelError: it has none (flow matching), or an unknown prediction type.
        """
        cumulative = getattr(scheduler, "alphas_cumprod", None)
        kind = getattr(scheduler.config, "prediction_type", "epsilon")
        if cumulative is None or kind not in ("epsilon", "sample", "v_prediction"):
            raise ModelError(
                "The scheduler is not variance-preserving with a prediction of epsilon, sample or "
                "velocity",
                got=f"{type(scheduler).__name__} with {kind}",
                hint="give DDIMScheduler, DPMSolverMultistepScheduler or UniPCMultistepScheduler",
            )
        cumulative = torch.as_tensor(cumulative).detach().cpu().double()
        return cls(cumulative.sqrt(), (1 - cumulative).sqrt(), kind)

    def __len__(self) -> int:
        return len(self.signal)

    def at(self, timestep: int) -> tuple[float, float]:
        """Return signal and sigma; timestep -1 is the clean image."""
        if timestep < 0:
            return 1.0, 0.0
        return float(self.signal[timestep]), float(self.sigma[timestep])

    def velocity(self, output: Tensor, noisy: Tensor, timestep: int) -> Tensor:
        """Convert the network's output to ``signal * noise - sigma * clean``."""
        signal, sigma = self.at(timestep)
        if self.prediction_type == "v_prediction":
            return output
        if self.prediction_type == "sample":
            return (signal * noisy - output) / max(sigma, _LEAST)
        return (output - sigma * noisy) / max(signal, _LEAST)

    def predict_x0(self, output: Tensor, noisy: Tensor, timestep: int) -> Tensor:
        """Convert the network's output at ``noisy`` to the clean image."""
        signal, sigma = self.at(timestep)
        return signal * noisy - sigma * self.velocity(output, noisy, timestep)

    def add_noise(self, clean: Tensor, noise: Tensor, timestep: int) -> Tensor:
        """Mix ``clean`` with ``noise`` at a timestep."""
        signal, sigma = self.at(timestep)
        return signal * clean + sigma * noise

    def ddim_step(self, noisy: Tensor, output: Tensor, timestep: int, to: int) -> Tensor:
        """Take a DDIM step (Song et al., 2021, eq. 12 with eta 0)."""
        keep, add = self._ddim(timestep, to)
        return keep * noisy + add * output

    def ddim_step_inverse(self, cleaner: Tensor, output: Tensor, timestep: int, to: int) -> Tensor:
        """Return the sample from which ``ddim_step`` gives ``cleaner`` at ``to``.

        Exact if ``output`` is the network's at the sample returned; the caller iterates.
        """
        keep, add = self._ddim(timestep, to)
        # At zero signal ``keep`` is 0: the sample comes from its prediction alone.
        return (cleaner - add * output) / max(keep, _LEAST)

    def _ddim(self, timestep: int, to: int) -> tuple[float, float]:
        """Return the factors of sample and output in a step.

        In the network's own prediction type: after a translation the output would depend on the
        sample twice, and the fixed-point iteration of the inversion would diverge.
        """
        (signal, sigma), (to_signal, to_sigma) = self.at(timestep), self.at(to)
        if self.prediction_type == "v_prediction":
            return to_signal * signal + to_sigma * sigma, to_sigma * signal - to_signal * sigma
        if self.prediction_type == "sample":
            keep = to_sigma / max(sigma, _LEAST)
            return keep, to_signal - keep * signal
        keep = to_signal / max(signal, _LEAST)
        return keep, to_sigma - keep * sigma
