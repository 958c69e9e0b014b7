"""Noise, noise levels and the way from noise to a face, for any scheduler of diffusers.

A network may predict the noise, the clean picture or the velocity v (Salimans & Ho, 2022,
section 2.4). ``Levels`` translates between them, which is all that guidance and inversion need to
know of a scheduler. ``Course`` is the list of steps still to go and how to take one of them.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from warehouse.errors import ModelError, SettingsError

FIXED_POINT_ROUNDS = 4
"""Of the inversion: every round asks the network once more and brings it nearer to the exact way
back (Pan et al., 2023, "Effective Real Image Editing with Accelerated Iterative Diffusion
Inversion"). One round is the plain inversion, which does not quite lead back; how far each number
gets is in ``tests/benchmarks/solvers.py``."""


def generators(seeds: Sequence[int]) -> list[torch.Generator]:
    """One CPU generator per face: its noise depends on its seed and on nothing else."""
    return [torch.Generator("cpu").manual_seed(seed) for seed in seeds]


def noise(
    dice: Sequence[torch.Generator], shape: Sequence[int], *, like: Tensor | None = None
) -> Tensor:
    """Standard normal float32[len(dice), *shape], drawn on the CPU so that devices agree."""
    rows = [torch.randn(tuple(shape), generator=die, dtype=torch.float32) for die in dice]
    drawn = torch.stack(rows)
    return drawn if like is None else drawn.to(device=like.device, dtype=like.dtype)


@dataclass(frozen=True)
class Levels:
    """How much of a picture is left at every timestep, and what the network's answer means.

    Attributes:
        signal: float64[T], the factor of the clean picture, sqrt of alpha-bar.
        sigma: float64[T], the factor of the noise; ``signal² + sigma² = 1``.
        prediction: ``epsilon``, ``sample`` or ``v_prediction``.
    """

    signal: Tensor
    sigma: Tensor
    prediction: str

    @classmethod
    def of(cls, scheduler: Any) -> Levels:
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
        if self.prediction == "v_prediction":
            return answer
        if self.prediction == "sample":
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

    def turn_back(self, cleaner: Tensor, answer: Tensor, timestep: int, to: int) -> Tensor:
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
        if self.prediction == "v_prediction":
            return to_signal * signal + to_sigma * sigma, to_sigma * signal - to_signal * sigma
        if self.prediction == "sample":
            keep = to_sigma / max(sigma, _LEAST)
            return keep, to_signal - keep * signal
        keep = to_signal / max(signal, _LEAST)
        return keep, to_sigma - keep * sigma


_LEAST = 1e-4


@dataclass(frozen=True)
class Course:
    """The steps still to go.

    Attributes:
        timesteps: from noisy to clean, each asked of the network once.
        scale: what the network is shown of a sample, by position.
        step: ``(answer, sample, position) -> sample`` at the next timestep.
        unit: deviation of the noise that a course from the very beginning starts with.
    """

    timesteps: list[float]
    scale: Callable[[Tensor, int], Tensor]
    step: Callable[[Tensor, Tensor, int], Tensor]
    unit: float = 1.0


def course(
    scheduler: Any,
    steps: int,
    *,
    dice: Sequence[torch.Generator] = (),
    strength: float = 1.0,
    device: torch.device | str = "cpu",
) -> Course:
    """The way of a scheduler of diffusers, from its noisiest step or from ``strength`` of them.

    The scheduler is copied: these objects keep state between steps, and two callers may share one.
    """
    left = kept_steps(steps, strength, most=scheduler.config.num_train_timesteps)
    own = copy.deepcopy(scheduler)
    own.set_timesteps(steps, device=device)
    first = getattr(own, "order", 1) * (steps - left)
    if first and hasattr(own, "set_begin_index"):
        own.set_begin_index(first)
    moments = own.timesteps[first:]
    extra: dict[str, Any] = {}
    if dice and "generator" in inspect.signature(own.step).parameters:
        extra["generator"] = list(dice)
    return Course(
        timesteps=[float(moment) for moment in moments],
        scale=lambda sample, at: own.scale_model_input(sample, moments[at]),
        step=lambda answer, sample, at: own.step(
            answer, moments[at], sample, return_dict=False, **extra
        )[0],
        unit=float(own.init_noise_sigma),
    )


def ddim_course(levels: Levels, steps: int, *, strength: float = 1.0) -> Course:
    """Deterministic DDIM on ``grid``: the way back of an inversion over the same grid."""
    moments = grid(len(levels), steps, strength=strength)

    def step(answer: Tensor, sample: Tensor, at: int) -> Tensor:
        to = moments[at + 1] if at + 1 < len(moments) else -1
        return levels.turn(sample, answer, moments[at], to)

    return Course([float(m) for m in moments], scale=lambda sample, at: sample, step=step)


def grid(total: int, steps: int, *, strength: float = 1.0) -> list[int]:
    """Timesteps from noisy to clean, evenly spaced from the end ("trailing", Lin et al., 2024).

    The one list that inversion walks up and denoising walks down.
    """
    left = kept_steps(steps, strength, most=total)
    every = [round(total - 1 - at * total / steps) for at in range(steps)]
    return every[steps - left :]


def kept_steps(steps: int, strength: float, *, most: int) -> int:
    """How many of ``steps`` a ``strength`` in (0, 1] leaves; at least one.

    Raises:
        SettingsError: strength out of range, or fewer than one or more than ``most`` steps.
    """
    if not 1 <= steps <= most:
        raise SettingsError(f"1 to {most} steps", got=str(steps), hint="give steps=10")
    if not 0 < strength <= 1:
        raise SettingsError(
            "a strength above 0 and up to 1", got=str(strength), hint="0.7 keeps the layout"
        )
    return max(1, round(steps * strength))


def invert(
    network: Callable[[Tensor, int], Tensor], clean: Tensor, levels: Levels, moments: list[int]
) -> Tensor:
    """The noise at ``moments[0]`` from which ``ddim_course`` leads back to ``clean``.

    Args:
        network: ``(noisy, timestep) -> answer``, unconditional and without guidance.
        moments: of ``grid``; walked from its end, so that both ways use the same timesteps.
    """
    sample, before = clean, -1
    for moment in reversed(moments):
        guess = sample
        for _ in range(FIXED_POINT_ROUNDS):
            guess = levels.turn_back(sample, network(guess, moment), moment, before)
        sample, before = guess, moment
    return sample
