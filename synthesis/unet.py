"""Denoising networks in three sizes of ``UNet2DConditionModel``."""

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
    """Size of a network.

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
"""XS3 trains on two CPU cores in hours; S and M need a GPU."""

_HEADS = 4
_GROUPS = 16


def tier(name: str) -> Tier:
    """Return the tier of this name.

    Raises:
        SettingsError: the name is unknown.
    """
    if name not in TIERS:
        raise SettingsError(
            "The tier is unknown", got=repr(name), hint=f"choose one of {', '.join(TIERS)}"
        )
    return TIERS[name]


def codec(name: str) -> PixelCodec:
    """Return the pixel codec of this tier."""
    return PixelCodec(side=tier(name).side, patch=tier(name).patch)


def conditioner(name: str, *, supported: tuple[int, ...]) -> AUConditioner:
    """Return an untrained conditioner of this tier."""
    return AUConditioner(supported=supported, width=tier(name).tokens)


def unet(name: str) -> UNet2DConditionModel:
    """Return an untrained network of this tier, which predicts the velocity."""
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
        # In diffusers this argument is the number of heads.
        attention_head_dim=_HEADS,
        norm_num_groups=_GROUPS,
        class_embed_type="projection",
        projection_class_embeddings_input_dim=AUConditioner(width=8).pooled_width,
    )
