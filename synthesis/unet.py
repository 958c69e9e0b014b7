"""The denoising network in three sizes: a small ``UNet2DConditionModel`` of diffusers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from synthesis.condition import AUConditioner
from synthesis.latents import PixelCodec
from warehouse.errors import SettingsError

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel


@dataclass(frozen=True)
class Tier:
    """A size of the model.

    Attributes:
        side, patch: of the codec.
        widths: channels of the three levels; attention to the tokens runs on the lower two.
        tokens: width of a condition token.
    """

    side: int
    patch: int
    widths: tuple[int, int, int]
    tokens: int
    layers: int = 1


TIERS = {
    "XS3": Tier(side=48, patch=3, widths=(32, 64, 128), tokens=64),
    "S": Tier(side=48, patch=2, widths=(48, 96, 144), tokens=96),
    "M": Tier(side=48, patch=2, widths=(64, 128, 192), tokens=128),
}
"""XS3 learns on a processor in hours; S and M want a GPU."""

_HEADS = 4
_GROUPS = 16


def tier(name: str) -> Tier:
    """The tier of this name.

    Raises:
        SettingsError: there is none; the message lists them.
    """
    if name not in TIERS:
        raise SettingsError(
            f"one of {', '.join(TIERS)}", got=repr(name), hint="choose one of these"
        )
    return TIERS[name]


def codec(name: str) -> PixelCodec:
    """The folding of this tier."""
    return PixelCodec(side=tier(name).side, patch=tier(name).patch)


def conditioner(name: str, *, supported: tuple[int, ...]) -> AUConditioner:
    """An untrained conditioner of this tier."""
    return AUConditioner(taught=supported, width=tier(name).tokens)


def unet(name: str) -> UNet2DConditionModel:
    """An untrained network of this tier: grid, timestep, tokens and vector in, velocity out."""
    from diffusers import UNet2DConditionModel

    size = tier(name)
    channels, edge, _ = codec(name).grid
    return UNet2DConditionModel(
        sample_size=edge,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=size.widths,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=size.layers,
        cross_attention_dim=size.tokens,
        # diffusers means the number of heads by this name, and keeps it for old checkpoints.
        attention_head_dim=_HEADS,
        norm_num_groups=_GROUPS,
        class_embed_type="projection",
        projection_class_embeddings_input_dim=AUConditioner(width=8).pooled_width,
    )
