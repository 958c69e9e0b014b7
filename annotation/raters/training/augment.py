"""Augment batches of training faces on their device.

The faces then resemble frames of a film. Every change works on many faces at once: a loop over
single faces would keep a GPU waiting.
``as_served`` crops faces as the pipeline does, for evaluation.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from annotation.raters.preprocess import resize
from annotation.raters.training.ferplus import ENLARGED, SIDE

if TYPE_CHECKING:
    from annotation.raters.training.ferplus import Faces

_RADIUS = 6
"""Of the filters, in pixels."""

_BLOCK = 8
_LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61), (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56), (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77), (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101), (72, 92, 95, 98, 112, 100, 103, 99),
)  # fmt: skip
"""Quantisation of JPEG at quality 50 (ITU-T T.81, table K.1)."""


@dataclass(frozen=True)
class Random:
    """Random numbers of n faces, drawn on their device.

    Methods return float[n, 1, 1, 1] or bool[n, 1, 1, 1].
    """

    generator: torch.Generator
    n: int

    def uniform(self, low: float = 0.0, high: float = 1.0, shape: tuple[int, ...] = ()) -> Tensor:
        """Draw evenly; ``shape`` replaces the last three axes."""
        shape = (self.n, *(shape or (1, 1, 1)))
        unit = torch.rand(shape, generator=self.generator, device=self.generator.device)
        return low + (high - low) * unit

    def normal(self, deviation: float, shape: tuple[int, ...] = ()) -> Tensor:
        """Draw normal values around 0; ``shape`` replaces the last three axes."""
        shape = (self.n, *(shape or (1, 1, 1)))
        device = self.generator.device
        return deviation * torch.randn(shape, generator=self.generator, device=device)

    def chance(self, probability: float) -> Tensor:
        """Draw True with this probability."""
        return self.uniform() < probability

    def rows(self, share: float) -> Tensor:
        """Choose a fixed share of the rows.

        A number that depends on the batch would make the GPU wait.
        """
        order = torch.randperm(self.n, generator=self.generator, device=self.generator.device)
        return order[: round(share * self.n)]


def batch(gray: Tensor, transform: Tensor, *, side: int, generator: torch.Generator) -> Tensor:
    """Augment cached faces at random.

    Args:
        gray: uint8[n, 112, 112].
        transform: float32[n, 2, 3], see ``ferplus.align``.
        generator: on the same device.

    Returns:
        Whole gray levels float32[n, 1, side, side] in 0..255.
    """
    faces = _move(gray[:, None].float(), transform, Random(generator, len(gray)))
    for share, change in CHANGES:
        rows = Random(generator, len(gray)).rows(share)
        if len(rows):
            changed = change(faces[rows], Random(generator, len(rows))).clamp(0, 255)
            faces = faces.index_copy(0, rows, changed)
    return functional.interpolate(faces, size=(side, side), mode="area").round()


def mix(
    face: Tensor, shares: Tensor, au: Tensor, *, part: float, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Mix the first ``part`` of a batch with itself.

    Mixup (Zhang et al., 2018, arXiv:1710.09412). One weight per batch, from Beta(0.4, 0.4). Action
    units of mixed faces become unknown: half of an open mouth is not a half-open mouth.

    Args:
        face: float[n, 1, s, s].
        shares: float[n, 10].
        au: float[n, K].
    """
    n = int(len(face) * part)
    if n < 2:
        return face, shares, au
    weight = float(np.random.default_rng(generator.initial_seed()).beta(0.4, 0.4))
    weight = max(weight, 1 - weight)
    other = torch.randperm(n, generator=generator, device=generator.device)

    def mixed(whole: Tensor) -> Tensor:
        return torch.cat([weight * whole[:n] + (1 - weight) * whole[:n][other], whole[n:]])

    unknown = torch.full_like(au[:n], float("nan"))
    return mixed(face), mixed(shares), torch.cat([unknown, au[n:]])


def as_served(faces: Faces, *, side: int) -> np.ndarray:
    """Crop faces as the pipeline does; return uint8[n, side, side].

    Pixels outside the image are black.
    """
    pairs = zip(faces.gray, faces.transform, strict=True)
    return np.stack([resize(np.where(_inside(at), gray, 0), side) for gray, at in pairs])


def _inside(transform: np.ndarray) -> np.ndarray:
    """Select a cached face's pixels inside the image: bool[112, 112]."""
    import cv2

    whole = np.full((ENLARGED, ENLARGED), 255, dtype=np.uint8)
    return cv2.warpAffine(whole, transform, (SIDE, SIDE)) > 127


def inside(transform: Tensor) -> Tensor:
    """Select the pixels inside the image for n faces: bool[n, 1, 112, 112]."""
    place = torch.arange(SIDE, device=transform.device, dtype=torch.float32)
    x, y = place[None, None, :], place[None, :, None]
    (a, b, c), (d, e, f) = (row.unbind(1) for row in transform.float().unbind(1))
    a, b, c, d, e, f = (value[:, None, None] for value in (a, b, c, d, e, f))
    scale = 1 / (a * e - b * d)
    source_x = (e * (x - c) - b * (y - f)) * scale
    source_y = (a * (y - f) - d * (x - c)) * scale
    last = ENLARGED - 0.5
    within = (source_x > -0.5) & (source_x < last) & (source_y > -0.5) & (source_y < last)
    return within[:, None]


def _move(faces: Tensor, transform: Tensor, random: Random) -> Tensor:
    """Imitate an error of the detector and mirror half of the faces.

    In half of them, paint the pixels outside the image black.
    """
    faces = torch.where(random.chance(0.5) & ~inside(transform), 0.0, faces)
    angle = random.normal(math.radians(7))
    scale = torch.exp(random.normal(0.08))
    width = scale * torch.exp(random.normal(0.04))
    flip = torch.where(random.chance(0.5), -1.0, 1.0)
    cos, sin = torch.cos(angle), torch.sin(angle)
    rows = [torch.cat([width * cos * flip, -scale * sin, random.normal(0.06)], dim=3),
            torch.cat([width * sin * flip, scale * cos, random.normal(0.06)], dim=3)]  # fmt: skip
    matrix = torch.cat(rows, dim=2)[:, 0]
    grid = functional.affine_grid(matrix, list(faces.shape), align_corners=False)
    return functional.grid_sample(faces, grid, padding_mode="border", align_corners=False)


def _gamma(faces: Tensor, random: Random) -> Tensor:
    return 255 * (faces / 255) ** torch.exp(random.normal(0.3))


def _side_light(faces: Tensor, random: Random) -> Tensor:
    angle = random.uniform(0, 2 * math.pi)
    along = torch.linspace(-1, 1, SIDE, device=faces.device)
    ramp = torch.cos(angle) * along + torch.sin(angle) * along[:, None]
    return faces * (1 + random.uniform(0.1, 0.45) * ramp)


def _low_light(faces: Tensor, random: Random) -> Tensor:
    """Add photon noise, which grows with the root of the signal, and darken."""
    deviation = torch.sqrt(faces * (255 / random.uniform(8, 60)))
    return (faces + random.normal(1.0, faces.shape[1:]) * deviation) * random.uniform(0.3, 1)


def _blur(faces: Tensor, random: Random) -> Tensor:
    """Blur out of focus, or along a line by a movement of 3 to 9 pixels."""
    defocus = _gaussian(random.uniform(0.6, 2.2))
    angle, length = random.uniform(0, math.pi), random.uniform(3, 10)
    place = torch.arange(-_RADIUS, _RADIUS + 1, device=faces.device, dtype=torch.float32)
    along = place * torch.cos(angle) + place[:, None] * torch.sin(angle)
    across = place[:, None] * torch.cos(angle) - place * torch.sin(angle)
    line = torch.sigmoid(4 * (length / 2 - along.abs())) * torch.exp(-2 * across**2)
    return _filtered(faces, torch.where(random.chance(0.5), defocus, line))


def _sharpen(faces: Tensor, random: Random) -> Tensor:
    """Sharpen; faces in films are finer than the 48 px training images."""
    smooth = _filtered(faces, _gaussian(torch.full_like(random.uniform(), 2.0)))
    return faces + random.uniform(0.3, 1.5) * (faces - smooth)


def _gaussian(deviation: Tensor) -> Tensor:
    """Return filters float[n, 1, 13, 13] of deviations float[n, 1, 1, 1]."""
    place = torch.arange(-_RADIUS, _RADIUS + 1, device=deviation.device, dtype=torch.float32)
    return torch.exp(-(place**2 + place[:, None] ** 2) / (2 * deviation**2))


def _filtered(faces: Tensor, filters: Tensor) -> Tensor:
    """Apply one filter float[n, 1, k, k] per face; filters need not sum to 1."""
    filters = filters / filters.sum(dim=(2, 3), keepdim=True)
    wide = functional.pad(faces, [_RADIUS] * 4, mode="replicate")
    return functional.conv2d(wide.transpose(0, 1), filters, groups=len(faces)).transpose(0, 1)


def _downscale(faces: Tensor, random: Random) -> Tensor:
    """Shrink to 22 to 55 pixels and enlarge again, one size per quarter."""
    sizes = np.random.default_rng(random.generator.initial_seed()).integers(22, 56, 4).tolist()
    small = (
        functional.interpolate(part, size=(size, size), mode="area")
        for part, size in zip(faces.chunk(len(sizes)), sizes, strict=False)
    )
    return torch.cat(
        [functional.interpolate(one, size=(SIDE, SIDE), mode="bilinear") for one in small]
    )


def _compress(faces: Tensor, random: Random) -> Tensor:
    """Quantise blocks of 8 x 8 pixels as JPEG of quality 12 to 59 does."""
    quality = random.uniform(12, 60)
    scale = torch.where(quality < 50, 50 / quality, 2 - quality / 50)
    table = torch.tensor(_LUMINANCE, device=faces.device, dtype=torch.float32)
    steps = (scale * table.view(1, -1, 1, 1)).clamp(1, 255)
    basis = _cosines(faces.device)
    blocks = functional.conv2d(faces - 128, basis, stride=_BLOCK)
    rounded = torch.round(blocks / steps) * steps
    return functional.conv_transpose2d(rounded, basis, stride=_BLOCK) + 128


def _cosines(device: torch.device) -> Tensor:
    """Return the orthonormal cosine transform as filters float[64, 1, 8, 8]."""
    k = torch.arange(_BLOCK, device=device, dtype=torch.float32)
    wave = torch.cos((2 * k + 1) * k[:, None] * math.pi / (2 * _BLOCK)) * math.sqrt(2 / _BLOCK)
    wave[0] /= math.sqrt(2)
    return torch.einsum("ux,vy->uvxy", wave, wave).reshape(-1, 1, _BLOCK, _BLOCK)


def _occlude(faces: Tensor, random: Random) -> Tensor:
    """Cover a rectangle with grey or noise, as a hand or a caption would."""
    place = torch.arange(SIDE, device=faces.device)

    def span() -> Tensor:
        length = random.uniform(SIDE // 8, SIDE // 2)
        first = random.uniform() * (SIDE - length)
        return (place >= first) & (place < first + length)

    box = span() & span().transpose(2, 3)
    noise = random.uniform(0, 255, faces.shape[1:])
    return torch.where(box, torch.where(random.chance(0.5), random.uniform(0, 255), noise), faces)


CHANGES: tuple[tuple[float, Callable[[Tensor, Random], Tensor]], ...] = (
    (0.15, _sharpen),
    (0.4, _gamma),
    (0.25, _side_light),
    (0.2, _blur),
    (0.2, _downscale),
    (0.1, _low_light),
    (0.2, _compress),
    (0.3, _occlude),
)
"""Share of the faces with each change, in the order in which a camera makes them."""
