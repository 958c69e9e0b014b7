"""Convert HDR frames (PQ, HLG) to look like their SDR version.

Transfer functions: ITU-R BT.2100-2. Diffuse white is at 203 cd/m², ITU-R BT.2408-7, and becomes
the white of SDR; brighter highlights are compressed.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

PQ, HLG = 16, 18
"""Transfer characteristics of ITU-T H.273."""

NAMES = {PQ: "PQ", HLG: "HLG"}

_WHITE = 203.0
_HLG_PEAK = 1000.0
_HLG_GAMMA = 1.2
_SDR_GAMMA = 2.4
_KNEE = 0.8
"""Share of diffuse white up to which brightness is that of the scene; above, it saturates."""

_TO_BT709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]],
    dtype=np.float32,
)
"""Linear BT.2020 to BT.709, ITU-R BT.2407."""

_LUMINANCE = np.array([[0.2627, 0.6780, 0.0593]], dtype=np.float32)

_BT2020 = 9
_MOST = 4.0
"""Light where the curve has reached the white of SDR."""

_ROWS = 256
"""Rows converted at once, to bound memory."""


def transfer_of(frame: VideoFrame) -> int | None:
    """Return PQ or HLG; None for SDR, whatever its bit depth."""
    transfer = int(frame.color_trc)
    return transfer if transfer in NAMES else None


def to_sdr(rgb: np.ndarray, *, transfer: int, wide: bool = True) -> np.ndarray:
    """Tone-map an HDR image.

    Args:
        rgb: uint16[h, w, 3], full range, as coded.
        transfer: PQ or HLG.
        wide: its primaries are those of BT.2020.

    Returns:
        uint8[h, w, 3], BT.709, gamma 2.4.
    """
    out = np.empty(rgb.shape, dtype=np.uint8)
    for top in range(0, rgb.shape[0], _ROWS):
        out[top : top + _ROWS] = _convert(rgb[top : top + _ROWS], transfer, wide)
    return out


def is_wide(frame: VideoFrame) -> bool:
    """Return whether the colours are BT.2020, the default of HDR."""
    return int(frame.color_primaries) in (_BT2020, 2)


def _convert(rgb: np.ndarray, transfer: int, wide: bool) -> np.ndarray:
    import cv2

    light = _linear(transfer)[rgb]
    if transfer == HLG:
        scene = cv2.transform(light, _LUMINANCE).reshape(*light.shape[:2], 1)
        light = light * (np.maximum(scene, 1e-6) ** (_HLG_GAMMA - 1) * (_HLG_PEAK / _WHITE))
    if wide:
        light = cv2.transform(light, _TO_BT709)
    root = np.sqrt(np.clip(light, 0, _MOST, out=light), out=light)
    return _coded()[(root * (65535 / _MOST**0.5)).astype(np.uint16)]


@lru_cache(maxsize=2)
def _linear(transfer: int) -> np.ndarray:
    """Return float32[65536], light per code; 1 is white in PQ, peak in HLG."""
    code = np.arange(1 << 16, dtype=np.float64) / 65535
    if transfer == PQ:
        m1, m2 = 2610 / 16384, 2523 / 4096 * 128
        c1, c2, c3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
        root = code ** (1 / m2)
        light = (np.maximum(root - c1, 0) / (c2 - c3 * root)) ** (1 / m1) * 10_000 / _WHITE
    else:
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        light = np.where(code <= 0.5, code**2 / 3, (np.exp((code - c) / a) + b) / 12)
    return light.astype(np.float32)


@lru_cache(maxsize=1)
def _coded() -> np.ndarray:
    """Return uint8[65536], code of BT.1886 per root of light in [0, _MOST]."""
    light = np.linspace(0, _MOST**0.5, 1 << 16) ** 2
    over = np.maximum(light - _KNEE, 0)
    light = np.minimum(light, _KNEE) + (1 - _KNEE) * (1 - np.exp(-over / (1 - _KNEE)))
    return np.round(255 * light ** (1 / _SDR_GAMMA)).astype(np.uint8)
