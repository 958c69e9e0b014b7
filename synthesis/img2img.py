"""Read reference images: find the face, resize to the network's size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from warehouse.errors import MediaError, SettingsError

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    Picture = Image | np.ndarray | str | Path

Find = Callable[[np.ndarray], list[Any]]
"""``uint8[h, w, 3] RGB -> faces``, best first, each with an aligned ``crop``."""

LAYOUTS = ("sdedit", "invert")
"""``sdedit``: add noise to the reference up to ``strength`` (Meng et al., 2022). ``invert``: find
the noise of the reference by DDIM inversion (SynFER's layout initialisation)."""

NOT_SQUARE = 1.02
"""Largest ratio of the longer over the shorter side of an aligned face."""


def read(
    reference: Picture | list[Picture], *, side: int, channels: int = 1, find: Find | None = None
) -> Tensor:
    """Read references as float32[m, channels, side, side] in -1..1.

    Args:
        reference: one or several of: a path, a PIL image, uint8[h, w] gray or uint8[h, w, 3] RGB.
        channels: 1 for gray, 3 for RGB.
        find: finds and aligns the face; without it the images must be aligned already.

    Raises:
        MediaError: an image is unreadable, has no face or, without ``find``, is not square.
    """
    import torch

    pictures = reference if isinstance(reference, list) else [reference]
    if not pictures:
        raise MediaError(
            "There is no reference image", got="an empty list", hint="give one or leave it out"
        )
    faces = [_resized(_face(_pixels(picture), find), side) for picture in pictures]
    stacked = torch.from_numpy(np.stack([_toned(face, channels) for face in faces]))
    return stacked.float() / 127.5 - 1


def check_layout(layout: str) -> str:
    """Return ``layout`` if it is one of ``LAYOUTS``.

    Raises:
        SettingsError: it is not one of them.
    """
    if layout not in LAYOUTS:
        raise SettingsError(
            "The layout is unknown",
            got=repr(layout),
            hint=f"use {' or '.join(LAYOUTS)}; sdedit is the quick one",
        )
    return layout


def _pixels(picture: Picture) -> np.ndarray:
    """Read an image as uint8[h, w, 3] RGB."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.ndim not in (2, 3) or 0 in picture.shape:
            raise _unfit(f"{picture.dtype} of shape {picture.shape}")
        if picture.ndim == 2:
            picture = np.repeat(picture[:, :, None], 3, axis=2)
        if picture.shape[2] != 3:
            raise _unfit(f"shape {picture.shape}")
        return np.ascontiguousarray(picture)
    try:
        image = Image.open(picture) if isinstance(picture, str | Path) else picture
        if not isinstance(image, Image.Image):
            raise _unfit(type(picture).__name__)
        return np.array(ImageOps.exif_transpose(image).convert("RGB"))
    except (UnidentifiedImageError, Image.DecompressionBombError):
        raise _unfit(f"{Path(str(picture)).name}, which is no image") from None
    except OSError as error:
        raise _unfit(f"{Path(str(picture)).name}: {error.strerror or 'damaged'}") from None


def _face(image: np.ndarray, find: Find | None) -> np.ndarray:
    if find is not None:
        found = find(image)
        if not found:
            raise MediaError(
                "No face is found in the reference image",
                got=f"{image.shape[1]} x {image.shape[0]} px",
                hint="give an image with one well-lit face, seen from the front",
            )
        return found[0].crop
    long, short = max(image.shape[:2]), min(image.shape[:2])
    if long > NOT_SQUARE * short:
        raise MediaError(
            "The reference is not an aligned, square face",
            got=f"{image.shape[1]} x {image.shape[0]} px",
            hint="pass find=pipeline.faces.find, which aligns any image",
        )
    return image


def _resized(image: np.ndarray, side: int) -> np.ndarray:
    import cv2

    method = cv2.INTER_AREA if min(image.shape[:2]) >= side else cv2.INTER_LINEAR
    return cv2.resize(image, (side, side), interpolation=method)


def _toned(image: np.ndarray, channels: int) -> np.ndarray:
    """Return channels first; gray is Rec. 601 luma, as in the whole project."""
    import cv2

    if channels == 3:
        return image.transpose(2, 0, 1)
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[None]


def _unfit(got: str) -> MediaError:
    return MediaError(
        "The reference is not a path, a PIL image, or uint8[h, w] or uint8[h, w, 3] pixels",
        got=got,
        hint="save the reference as PNG or JPEG",
    )
