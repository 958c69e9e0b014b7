from __future__ import annotations

import pytest
import torch

from synthesis import noise_schedule
from synthesis import unet as network
from synthesis.latents import PixelCodec
from warehouse.errors import ModelError, SettingsError


def test_alphas_cumprod__falls_to_zero() -> None:
    kept = noise_schedule.alphas_cumprod()
    assert len(kept) == noise_schedule.NUM_TRAIN_TIMESTEPS
    assert kept[0] > 0.999
    assert kept[-1] == 0
    assert (kept.diff() < 0).all()


@pytest.mark.parametrize("moment", [0, 300, 700, noise_schedule.NUM_TRAIN_TIMESTEPS - 1])
def test_predict_x0__inverts_add_noise(moment: int) -> None:
    torch.manual_seed(moment)
    face, noise = torch.randn(2, 3, 1, 4, 4)
    kept = noise_schedule.alphas_cumprod()[[moment] * 3]
    noisy, velocity = noise_schedule.add_noise(face, noise, kept)
    assert torch.allclose(noise_schedule.predict_x0(noisy, velocity, kept), face, atol=1e-5)


def test_add_noise__agrees_with_diffusers() -> None:
    torch.manual_seed(0)
    face, noise = torch.randn(2, 4, 1, 4, 4)
    moment = torch.tensor([0, 10, 500, 999])
    noisy, velocity = noise_schedule.add_noise(face, noise, noise_schedule.alphas_cumprod()[moment])
    theirs = noise_schedule.training_scheduler()
    assert torch.allclose(noisy, theirs.add_noise(face, noise, moment), atol=1e-6)
    assert torch.allclose(velocity, theirs.get_velocity(face, noise, moment), atol=1e-6)


@pytest.mark.parametrize(
    ("kept", "weight"),
    [(0.0, 1.0), (0.5, 1.0), (5 / 6, 1.0), (0.9, 0.6), (0.99, 0.06), (1.0, 0.0)],
)
def test_loss_weight__values(kept: float, weight: float) -> None:
    assert float(noise_schedule.loss_weight(torch.tensor(kept))) == pytest.approx(weight, abs=1e-6)


@pytest.mark.parametrize(("side", "patch"), [(48, 3), (48, 2), (16, 1), (12, 4)])
def test_pixel_codec__round_trip(side: int, patch: int) -> None:
    torch.manual_seed(0)
    codec, face = PixelCodec(side=side, patch=patch), torch.randn(2, 1, side, side)
    grid = codec.encode(face)
    assert grid.shape[1:] == codec.grid
    assert torch.equal(codec.decode(grid), face)


def test_pixel_codec__invalid() -> None:
    with pytest.raises(ModelError, match="does not divide the image size 48"):
        PixelCodec(side=48, patch=5)
    with pytest.raises(ModelError, match="gray faces of 48 px"):
        PixelCodec().encode(torch.zeros(1, 3, 48, 48))


@pytest.mark.parametrize("name", sorted(network.TIERS))
def test_unet__fits_codec_and_conditioner(name: str) -> None:
    unet, codec = network.unet(name), network.codec(name)
    conditioner = network.conditioner(name, supported=(12,))
    assert (unet.config.in_channels, unet.config.sample_size) == codec.grid[:2]
    assert unet.config.cross_attention_dim == conditioner.config.width
    assert unet.config.projection_class_embeddings_input_dim == conditioner.pooled_width


def test_unet__unknown_tier() -> None:
    with pytest.raises(SettingsError, match="XS3, S, M"):
        network.unet("XXL")
