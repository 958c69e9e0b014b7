"""Pixels folded into channels: the grid that a small diffusion network works on.

Folding is free and loses nothing, while a quarter or a ninth of the positions remain; a VAE of
this size would blur, and would have to be trained first.
"""

from __future__ import annotations

from typing import Any

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
