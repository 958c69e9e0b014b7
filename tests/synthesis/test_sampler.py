"""Noise by seed, noise levels against diffusers, and inversion."""

from __future__ import annotations

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
)

from synthesis.noise_schedule import NoiseLevels
from synthesis.sampler import (
    ddim_schedule,
    ddim_timesteps,
    invert,
    random_noise,
    sampling_schedule,
    seeded_generators,
    steps_for_strength,
)
from warehouse.errors import ModelError, SettingsError

_ZERO_SNR = {
    "beta_schedule": "squaredcos_cap_v2",
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
}


def test_random_noise__independent_of_neighbours() -> None:
    together = random_noise(seeded_generators([3, 7, 3]), (4, 5, 5))
    alone = random_noise(seeded_generators([7]), (4, 5, 5))
    assert torch.equal(together[1:2], alone)
    assert torch.equal(together[0], together[2])
    assert not torch.equal(together[0], together[1])


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
def test_noise_levels__prediction_types_agree(prediction: str) -> None:
    scheduler = DDIMScheduler(prediction_type=prediction, clip_sample=False)
    levels = NoiseLevels.of(scheduler)
    clean, drawn = torch.randn(2, 3, 4, 4, dtype=torch.float64).chunk(2)
    signal, sigma = levels.at(600)
    noisy = levels.add_noise(clean, drawn, 600)
    answers = {
        "epsilon": drawn,
        "sample": clean,
        "v_prediction": signal * drawn - sigma * clean,
    }
    assert torch.allclose(levels.predict_x0(answers[prediction], noisy, 600), clean)
    scheduler.set_timesteps(10)
    theirs = scheduler.step(answers[prediction].float(), 600, noisy.float()).prev_sample
    ours = levels.ddim_step(noisy, answers[prediction], 600, 500)
    assert torch.allclose(ours.float(), theirs, atol=1e-5)


@pytest.mark.parametrize(
    ("total", "steps", "strength", "expected"),
    [
        (1000, 5, 1.0, [999, 799, 599, 399, 199]),
        (1000, 5, 0.6, [599, 399, 199]),
        (1000, 3, 1.0, [999, 666, 332]),
        (10, 10, 0.01, [0]),
    ],
)
def test_ddim_timesteps__spacing(
    total: int, steps: int, strength: float, expected: list[int]
) -> None:
    assert ddim_timesteps(total, steps, strength=strength) == expected


@pytest.mark.parametrize(
    ("steps", "strength"), [(0, 1.0), (1001, 1.0), (10, 0.0), (10, 1.2), (10, -1)]
)
def test_steps_for_strength__out_of_range(steps: int, strength: float) -> None:
    with pytest.raises(SettingsError):
        steps_for_strength(steps, strength, most=1000)


def test_noise_levels__flow_matching() -> None:
    with pytest.raises(ModelError, match="FlowMatchEuler"):
        NoiseLevels.of(FlowMatchEulerDiscreteScheduler())


@pytest.mark.parametrize("kind", [DDIMScheduler, DPMSolverMultistepScheduler,
                                  UniPCMultistepScheduler, EulerDiscreteScheduler])  # fmt: skip
@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_sampling_schedule__perfect_denoiser(kind: type, strength: float) -> None:
    """Every solver must reach the image of a perfect denoiser."""
    scheduler = kind(**{**_ZERO_SNR, "rescale_betas_zero_snr": kind is not EulerDiscreteScheduler})
    levels = NoiseLevels.of(scheduler)
    target = torch.linspace(-0.8, 0.8, 16).view(1, 1, 4, 4)
    schedule = sampling_schedule(scheduler, 10, strength=strength)
    assert len(schedule.timesteps) == steps_for_strength(10, strength, most=1000)
    # The first timestep, in the scheduler's own scale.
    drawn = random_noise(seeded_generators([1]), (1, 4, 4))
    share = float(schedule.scale_model_input(torch.ones(1), 0))
    sample = levels.add_noise(target, drawn, round(schedule.timesteps[0])) / share
    for position, timestep in enumerate(schedule.timesteps):
        noisy = schedule.scale_model_input(sample, position)
        signal, sigma = levels.at(round(timestep))
        velocity = (signal * noisy - target) / sigma
        sample = schedule.step(velocity, sample, position)
    assert torch.allclose(sample, target, atol=2e-3)


def test_sampling_schedule__scheduler_unchanged() -> None:
    scheduler = DPMSolverMultistepScheduler(**_ZERO_SNR)
    before = scheduler.timesteps.clone()
    sampling_schedule(scheduler, 7)
    assert scheduler.num_inference_steps is None
    assert torch.equal(scheduler.timesteps, before)


@pytest.mark.parametrize(
    ("prediction", "strength"),
    # At nearly pure noise the iteration converges slowly.
    [("epsilon", 0.3), ("epsilon", 0.7), ("v_prediction", 0.3), ("v_prediction", 1.0)],
)
def test_invert__denoising_leads_back(prediction: str, strength: float) -> None:
    torch.manual_seed(0)
    mix = torch.nn.Conv2d(2, 2, 3, padding=1)

    @torch.no_grad()
    def network(noisy: torch.Tensor, timestep: int) -> torch.Tensor:
        asked.append(timestep)
        return torch.tanh(mix(noisy)) * (0.5 + timestep / 2000)

    asked: list[int] = []
    levels = NoiseLevels.of(DDIMScheduler(prediction_type=prediction, clip_sample=False))
    picture = random_noise(seeded_generators([5]), (2, 6, 6)).clamp(-1, 1)
    start = invert(network, picture, levels, ddim_timesteps(1000, 10, strength=strength))
    up = list(dict.fromkeys(asked))
    schedule, sample = ddim_schedule(levels, 10, strength=strength), start
    for position, timestep in enumerate(schedule.timesteps):
        sample = schedule.step(network(sample, int(timestep)), sample, position)
    assert up == [int(timestep) for timestep in reversed(schedule.timesteps)]
    assert (sample - picture).abs().max() < 0.02
    assert (start - picture).abs().max() > 0.2
    assert torch.equal(
        start, invert(network, picture, levels, ddim_timesteps(1000, 10, strength=strength))
    )
