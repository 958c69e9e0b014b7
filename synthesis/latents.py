"""Between pictures and what the network works on: folded pixels, or the latents of a VAE."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor
from torch.nn import functional

from warehouse.errors import ModelError


class PixelCodec(ModelMixin, ConfigMixin):
    """Gray faces to grids and back; saved like any part of a pipeline, without weights of its own.

    Args:
        side: pixels along an edge of the face.
        patch: pixels along an edge of what becomes one position; divides ``side``.
    """

    config: Any
    config_name = "config.json"  # type: ignore[assignment]

    @register_to_config
    def __init__(self, side: int = 48, patch: int = 3) -> None:
        super().__init__()
        if patch < 1 or side % patch:
            raise ModelError(
                f"a patch that divides a side of {side}", got=str(patch), hint="give patch=3"
            )
        # diffusers refuses to read back a part of a pipeline that has no weights at all.
        self.register_buffer("version", torch.ones(1))

    @property
    def grid(self) -> tuple[int, int, int]:
        """Channels, height and width of what ``encode`` gives."""
        patch, edge = self.config.patch, self.config.side // self.config.patch
        return patch * patch, edge, edge

    def encode(self, gray: Tensor) -> Tensor:
        """float[n, 1, side, side] in -1..1 to float[n, patch², side/patch, side/patch]."""
        side = self.config.side
        if gray.shape[1:] != (1, side, side):
            raise ModelError(
                f"gray faces of {side} px, [n, 1, {side}, {side}]",
                got=f"{list(gray.shape)}",
                hint="resize them first",
            )
        return functional.pixel_unshuffle(gray, self.config.patch)

    def decode(self, grid: Tensor) -> Tensor:
        """The exact inverse of ``encode``."""
        return functional.pixel_shuffle(grid, self.config.patch)


_LUMA = (0.299, 0.587, 0.114)
"""Rec. 601, the gray of every rater in the project."""


@dataclass(frozen=True)
class LatentCodec:
    """Encodes and decodes; exactly one of ``codec`` (gray) and ``vae`` (RGB) is given.

    Pictures are float[n, c, s, s] in -1..1.
    """

    codec: Any = None
    vae: Any = None

    @property
    def channels(self) -> int:
        return 1 if self.vae is None else int(self.vae.config.in_channels)

    def image_size(self, unet: Any) -> int:
        """Pixels along one edge of the pictures that ``unet`` was made for."""
        if self.vae is None:
            return int(self.codec.config.side)
        size = unet.config.sample_size
        halvings = len(self.vae.config.block_out_channels) - 1
        return (size if isinstance(size, int) else size[0]) * 2**halvings

    def shape(self, unet: Any) -> tuple[int, int, int]:
        """Of one face as the network sees it."""
        size = unet.config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        return int(unet.config.in_channels), int(height), int(width)

    def encode(self, pictures: Tensor) -> Tensor:
        """Of a VAE's distribution the mode, not a draw: the same picture gives the same code."""
        if self.vae is None:
            return self.codec.encode(pictures)
        return (self.vae.encode(pictures).latent_dist.mode() - self._shift) * self._scale

    def decode(self, latents: Tensor) -> Tensor:
        if self.vae is None:
            return self.codec.decode(latents)
        return self.vae.decode(latents / self._scale + self._shift, return_dict=False)[0]

    @property
    def _scale(self) -> float:
        return float(self.vae.config.scaling_factor)

    @property
    def _shift(self) -> float:
        return float(getattr(self.vae.config, "shift_factor", None) or 0.0)


def as_gray(pictures: Tensor) -> Tensor:
    """float[n, c, s, s] in -1..1 to float[n, 1, s, s] in 0..255, with gradient where inside."""
    if pictures.shape[1] == 3:
        luma = pictures.new_tensor(_LUMA).view(1, 3, 1, 1)
        pictures = (pictures * luma).sum(dim=1, keepdim=True)
    return ((pictures.float() + 1) * 127.5).clamp(0, 255)


def as_uint8(pictures: Tensor) -> np.ndarray:
    """float[n, 1 or 3, s, s] in -1..1 to uint8[n, s, s] or uint8[n, s, s, 3]."""
    whole = ((pictures.detach().float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    last = whole.permute(0, 2, 3, 1).cpu().numpy()
    return np.ascontiguousarray(last[..., 0] if last.shape[-1] == 1 else last)
