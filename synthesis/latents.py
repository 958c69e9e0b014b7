"""Convert between images and the latents of the diffusion network.

``PixelCodec`` folds gray pixels into channels for the package's own network. A Stable Diffusion
has a VAE instead. ``LatentCodec`` is the one interface to both.
"""

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

_LUMA = (0.299, 0.587, 0.114)
"""Rec. 601, the gray of every rater in the project."""


class PixelCodec(ModelMixin, ConfigMixin):
    """Fold gray faces into channels and unfold them; lossless, untrained.

    Folding reduces the positions to a quarter or a ninth. A VAE of this size would blur and would
    have to be trained first. Saved like any component of a diffusers pipeline.

    Args:
        side: pixels along an edge of the face.
        patch: pixels along an edge of what becomes one position; divides ``side``.

    Raises:
        ModelError: ``patch`` does not divide ``side``.
    """

    config: Any
    config_name = "config.json"  # type: ignore[assignment]

    @register_to_config
    def __init__(self, side: int = 48, patch: int = 3) -> None:
        super().__init__()
        if patch < 1 or side % patch:
            raise ModelError(
                f"The patch size does not divide the image size {side}",
                got=str(patch),
                hint="give patch=3",
            )
        # diffusers cannot load a component without weights, hence one unused buffer.
        self.register_buffer("version", torch.ones(1))

    @property
    def grid(self) -> tuple[int, int, int]:
        """Channels, height and width of an encoded face."""
        patch, edge = self.config.patch, self.config.side // self.config.patch
        return patch * patch, edge, edge

    def encode(self, gray: Tensor) -> Tensor:
        """Fold float[n, 1, s, s] in -1..1 to [n, patch², s/patch, s/patch].

        Raises:
            ModelError: ``gray`` has another shape.
        """
        side = self.config.side
        if gray.shape[1:] != (1, side, side):
            raise ModelError(
                f"The codec takes gray faces of {side} px, [n, 1, {side}, {side}]",
                got=f"{list(gray.shape)}",
                hint="resize them first",
            )
        return functional.pixel_unshuffle(gray, self.config.patch)

    def decode(self, latents: Tensor) -> Tensor:
        """Invert ``encode`` exactly."""
        return functional.pixel_shuffle(latents, self.config.patch)


@dataclass(frozen=True)
class LatentCodec:
    """Encode and decode images float[n, c, s, s] in -1..1.

    Exactly one of ``codec`` (gray) and ``vae`` (RGB) is set.
    """

    codec: Any = None
    vae: Any = None

    @property
    def channels(self) -> int:
        """Channels of an image: 1 for gray, 3 for RGB."""
        return 1 if self.vae is None else int(self.vae.config.in_channels)

    def image_size(self, unet: Any) -> int:
        """Pixels along one edge of the images that ``unet`` generates."""
        if self.vae is None:
            return int(self.codec.config.side)
        size = unet.config.sample_size
        halvings = len(self.vae.config.block_out_channels) - 1
        return (size if isinstance(size, int) else size[0]) * 2**halvings

    def latent_shape(self, unet: Any) -> tuple[int, int, int]:
        """Shape of the latents of one image."""
        size = unet.config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        return int(unet.config.in_channels), int(height), int(width)

    def encode(self, images: Tensor) -> Tensor:
        """Encode images; of a VAE's distribution, take the mode."""
        if self.vae is None:
            return self.codec.encode(images)
        return (self.vae.encode(images).latent_dist.mode() - self._shift) * self._scale

    def decode(self, latents: Tensor) -> Tensor:
        """Decode latents to images, about -1..1."""
        if self.vae is None:
            return self.codec.decode(latents)
        return self.vae.decode(latents / self._scale + self._shift, return_dict=False)[0]

    @property
    def _scale(self) -> float:
        return float(self.vae.config.scaling_factor)

    @property
    def _shift(self) -> float:
        return float(getattr(self.vae.config, "shift_factor", None) or 0.0)


def to_gray(images: Tensor) -> Tensor:
    """Convert float[n, c, s, s] in -1..1 to float[n, 1, s, s] in 0..255.

    Differentiable where the values are inside the range.
    """
    if images.shape[1] == 3:
        luma = images.new_tensor(_LUMA).view(1, 3, 1, 1)
        images = (images * luma).sum(dim=1, keepdim=True)
    return ((images.float() + 1) * 127.5).clamp(0, 255)


def to_uint8(images: Tensor) -> np.ndarray:
    """Convert float[n, c, s, s] in -1..1 to uint8[n, s, s] or [n, s, s, 3]."""
    whole = ((images.detach().float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    last = whole.permute(0, 2, 3, 1).cpu().numpy()
    return np.ascontiguousarray(last[..., 0] if last.shape[-1] == 1 else last)
