"""How much of a face is left at every moment, and how much each moment counts.

A face x at moment t is ``sqrt(kept) x + sqrt(1 - kept) noise``; the network predicts the velocity
``v = sqrt(kept) noise - sqrt(1 - kept) x`` (Salimans & Ho, 2022, doi:10.48550/arXiv.2202.00512).
The cosine course (Nichol & Dhariwal, 2021) is stretched so that nothing is kept at the end (Lin
et al., 2024, arXiv:2305.08891): sampling starts from pure noise, and so must training.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import DDIMScheduler, UniPCMultistepScheduler
from torch import Tensor

MOMENTS = 1000

GAMMA = 5.0
"""Signal-to-noise ratio above which moments count less (Hang et al., 2023, arXiv:2303.09556)."""


_COURSE: dict[str, Any] = {
    "num_train_timesteps": MOMENTS,
    "beta_schedule": "squaredcos_cap_v2",
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
}


def scheduler() -> DDIMScheduler:
    """The course of noise that the network is trained on."""
    return DDIMScheduler(**_COURSE, clip_sample=True)


def sampler() -> UniPCMultistepScheduler:
    """What draws: of the solvers in ``tests.benchmarks.solvers`` the nearest in ten steps."""
    return UniPCMultistepScheduler(**_COURSE)


def kept() -> Tensor:
    """float32[MOMENTS]: the share of the face's variance that is left, 1 down to exactly 0."""
    left: Tensor = vars(scheduler())["alphas_cumprod"]
    return left.float()


def weight(kept: Tensor) -> Tensor:
    """How much a squared error of v counts at each moment, in 0..1.

    On the error of x, v-prediction weighs by ``snr + 1``. Min-SNR caps the ratio at GAMMA; capping
    the whole weight, ``min(snr, GAMMA) + 1``, gives on v ``min(1, (GAMMA + 1) * (1 - kept))``. The
    often copied ``min(snr, GAMMA) / (snr + 1)`` is zero where nothing is kept, so that the first
    step of sampling would never be learned.
    """
    return ((GAMMA + 1) * (1 - kept)).clamp(max=1)


def noised(face: Tensor, noise: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
    """The noisy face and the velocity there; ``kept`` float[n] per row."""
    signal, sigma = _factors(kept, face)
    return signal * face + sigma * noise, signal * noise - sigma * face


def cleaned(noisy: Tensor, velocity: Tensor, kept: Tensor) -> Tensor:
    """The face that a velocity points to."""
    signal, sigma = _factors(kept, noisy)
    return signal * noisy - sigma * velocity


def _factors(kept: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    kept = kept.view(-1, *[1] * (like.ndim - 1))
    return torch.sqrt(kept), torch.sqrt(1 - kept)
