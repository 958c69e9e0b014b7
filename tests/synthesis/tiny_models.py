"""Small networks of random weights, of the real classes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    ConfigMixin,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    ModelMixin,
    SchedulerMixin,
    UNet2DConditionModel,
)
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from synthesis.condition import AUConditioner
from synthesis.latents import PixelCodec
from synthesis.pipeline import FaceAUPipeline
from synthesis.training.dataset import TrainingFaces
from warehouse.vocabulary import ACTION_UNITS, EXPRESSIONS

UNITS = tuple(unit.number for unit in ACTION_UNITS)
SUPPORTED = tuple(unit for unit in UNITS if unit not in (11, 23))
WIDTH = 16
SIDE = 16


def _unet(**options: Any) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        block_out_channels=(16, 32),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        attention_head_dim=2,
        norm_num_groups=8,
        cross_attention_dim=WIDTH,
        **options,
    )


def pixel_pipeline(*, seed: int = 0) -> FaceAUPipeline:
    """Make a pixel pipeline: gray faces of 16 px on a grid of 4 x 8 x 8."""
    torch.manual_seed(seed)
    conditioner = AUConditioner(supported=SUPPORTED, width=WIDTH)
    pipeline = FaceAUPipeline(
        unet=_unet(
            sample_size=8,
            in_channels=4,
            out_channels=4,
            class_embed_type="projection",
            projection_class_embeddings_input_dim=conditioner.pooled_width,
        ),
        conditioner=conditioner,
        scheduler=DPMSolverMultistepScheduler(
            beta_schedule="squaredcos_cap_v2",
            prediction_type="v_prediction",
            rescale_betas_zero_snr=True,
            timestep_spacing="trailing",
        ),
        codec=PixelCodec(side=SIDE, patch=2),
    )
    return quiet(pipeline)


def stable_diffusion(
    *, encoder: tuple[Any, Any] | None = None, seed: int = 0, side: int = SIDE
) -> dict[str, Any]:
    """Components of a Stable Diffusion: RGB, with latents of half the side."""
    torch.manual_seed(seed)
    text_encoder, tokenizer = encoder or (SmallTextEncoder(), SmallTokenizer())
    return {
        "unet": _unet(sample_size=side // 2, in_channels=4, out_channels=4),
        "vae": AutoencoderKL(
            block_out_channels=(8, 16),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            latent_channels=4,
            norm_num_groups=4,
            sample_size=side,
        ),
        "scheduler": DDIMScheduler(
            beta_schedule="scaled_linear",
            beta_start=0.00085,
            beta_end=0.012,
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
        ),
        "text_encoder": text_encoder.eval(),
        "tokenizer": tokenizer,
    }


class SmallTextEncoder(ModelMixin, ConfigMixin):
    """The interface of ``CLIPTextModel`` that a pipeline uses."""

    config_name = "config.json"

    @register_to_config
    def __init__(self, words: int = 97, length: int = 12, width: int = WIDTH) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, width)
        self.places = nn.Parameter(torch.randn(length, width) * 0.1)
        self.mix = nn.TransformerEncoderLayer(width, 2, 32, dropout=0.0, batch_first=True)

    def forward(self, ids: Tensor) -> tuple[Tensor]:
        return (self.mix(self.embedding(ids) + self.places),)


class SmallTokenizer(SchedulerMixin, ConfigMixin):
    """The interface of ``CLIPTokenizer`` that a pipeline uses.

    It inherits from a scheduler, the only base without weights that diffusers can save.
    """

    config_name = "tokenizer_config.json"

    @register_to_config
    def __init__(self, words: int = 97, length: int = 12) -> None:
        self.model_max_length = length

    def __call__(
        self, texts: list[str], *, max_length: int, return_tensors: str, **_: Any
    ) -> SimpleNamespace:
        assert return_tensors == "pt"
        ids = np.zeros((len(texts), max_length), dtype=np.int64)
        for row, text in enumerate(texts):
            for place, word in enumerate(text.split()[:max_length]):
                ids[row, place] = 1 + sum(word.encode()) % (self.config.words - 1)
        return SimpleNamespace(input_ids=torch.from_numpy(ids))


class TinyGuide(nn.Module):
    """Rater of random weights; it rates two units."""

    def __init__(self, *, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.trunk = nn.Sequential(
            nn.AdaptiveAvgPool2d(8), nn.Flatten(), nn.Linear(64, 32), nn.Tanh()
        )
        self.answers, self.au = nn.Linear(32, 10), nn.Linear(32, 2)
        self.requires_grad_(False)

    def forward(self, gray: Tensor) -> tuple[Tensor, Tensor]:
        feature = self.trunk(gray / 64 - 2)
        au = gray.new_full((len(gray), len(UNITS)), torch.nan)
        au[:, [UNITS.index(12), UNITS.index(4)]] = torch.sigmoid(self.au(feature))
        return torch.log_softmax(3 * self.answers(feature), dim=1), au


def faces(n: int = 24, *, side: int = SIDE) -> TrainingFaces:
    """Gradients for faces, brighter below where AU12 is strong."""
    rng = np.random.default_rng(0)
    au = np.full((n, len(UNITS)), np.nan, dtype=np.float32)
    au[:, UNITS.index(12)] = rng.random(n)
    ramp = np.linspace(0, 255, side)[:, None] * au[:, UNITS.index(12), None, None]
    gray = np.broadcast_to(ramp, (n, side, side)).astype(np.uint8)
    expression = np.eye(len(EXPRESSIONS), dtype=np.float32)[rng.integers(0, 8, n)]
    # The first row is held out, the others are training rows.
    digest = np.array([f"{row:02x}" * 32 for row in (0, *range(32, 31 + n))])
    return TrainingFaces(gray, expression, au, digest)


def quiet(pipeline: FaceAUPipeline) -> FaceAUPipeline:
    pipeline.set_progress_bar_config(disable=True)
    for part in pipeline.components.values():
        if isinstance(part, nn.Module):
            part.eval()
    return pipeline
