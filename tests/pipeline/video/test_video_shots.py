"""Cuts are found; light, motion and flashes are not cuts."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from pipeline.video.reader import sample
from pipeline.video.shots import GRID, CutDetector
from tests import media_files


def scene(seed: int) -> np.ndarray:
    """A coarse picture, uint8[27, 48]."""
    blocks = np.random.default_rng(seed).integers(20, 236, (5, 8), dtype=np.uint8)
    return cv2.resize(blocks, GRID[::-1], interpolation=cv2.INTER_CUBIC)


def begins(grids: list[np.ndarray]) -> list[int]:
    """Numbers of the pictures that begin a shot."""
    cuts = CutDetector()
    said = [cuts.compare(grid) for grid in [*grids, None]]
    return [number - 1 for number, cut in enumerate(said) if cut]


A, B, C = scene(1), scene(2), scene(3)
FLASH = cv2.add(A, np.full_like(A, 90))
PAN = [np.roll(A, shift, axis=1) for shift in range(12)]
DIMMED = [(A * level).astype(np.uint8) for level in np.linspace(1, 0.1, 12)]


@pytest.mark.parametrize(
    ("grids", "expected"),
    [
        pytest.param([], [], id="nothing"),
        pytest.param([A], [], id="one picture"),
        pytest.param([A] * 9, [], id="standing still"),
        pytest.param([A] * 5 + [B] * 5, [5], id="a cut"),
        pytest.param([A] * 5 + [B] * 5 + [A] * 5, [5, 10], id="there and back"),
        pytest.param([A] * 5 + [B], [5], id="at the very end"),
        pytest.param([A, *[B] * 5], [1], id="at the very start"),
        pytest.param(PAN, [], id="a pan"),
        pytest.param([*PAN, *[C] * 4], [12], id="a cut after a pan"),
        pytest.param(DIMMED, [], id="lights go down"),
        pytest.param([A] * 5 + [FLASH] + [A] * 5, [], id="a camera flash"),
        pytest.param([A] * 5 + [np.zeros_like(A)] * 5 + [B] * 5, [5, 10], id="over black"),
    ],
)
def test_cut_detector__sequences(grids: list[np.ndarray], expected: list[int]) -> None:
    assert begins(grids) == expected


@pytest.mark.parametrize(
    ("codec", "pix_fmt"),
    [("libx264", "yuv420p"), ("libx264", "yuv420p10le"), ("mjpeg", "yuvj420p"), ("ffv1", "bgr0")],
)
def test_sample__cut_flag(tmp_path, codec: str, pix_fmt: str) -> None:  # type: ignore[no-untyped-def]
    shots = [cv2.cvtColor(cv2.resize(grid, (96, 54)), cv2.COLOR_GRAY2RGB) for grid in (A, B, C)]
    frames = [shot for shot in shots for _ in range(13)]
    path = media_files.coded(tmp_path / "a.mkv", frames, codec=codec, pix_fmt=pix_fmt)
    found = {frame.index: frame.cut for frame in sample(str(path), fps=2.0)}
    # Cuts at 13 and 26; samples stand at every fifth frame.
    assert [index for index, cut in found.items() if cut] == [15, 30]
