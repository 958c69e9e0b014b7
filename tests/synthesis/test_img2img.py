"""Reference pictures: accepted formats, and refusal without a face."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.faces import find
from synthesis.img2img import check_layout, read
from warehouse.errors import MediaError, SettingsError


def _ramp(height: int, width: int) -> np.ndarray:
    return np.linspace(0, 255, height * width).reshape(height, width).astype(np.uint8)


@dataclass
class _Face:
    crop: np.ndarray


def test_read__input_types_agree(tmp_path: Path) -> None:
    gray = _ramp(32, 32)
    file = tmp_path / "face.png"
    Image.fromarray(gray).save(file)
    rgb = np.repeat(gray[:, :, None], 3, axis=2)
    kinds = [file, str(file), Image.fromarray(gray), gray, rgb]
    rows = read(kinds, side=16)
    assert rows.shape == (5, 1, 16, 16)
    assert float((rows - rows[:1]).abs().max()) == 0
    assert float(rows.min()) >= -1
    assert float(rows.max()) <= 1
    assert float(rows[0].mean()) == pytest.approx(0, abs=0.01)


def test_read__gray_and_rgb() -> None:
    red = np.zeros((16, 16, 3), dtype=np.uint8)
    red[..., 0] = 255
    assert float(read(red, side=16).mean()) == pytest.approx(2 * 76 / 255 - 1)
    coloured = read(red, side=16, channels=3)
    assert coloured.shape == (1, 3, 16, 16)
    assert coloured.mean(dim=(0, 2, 3)).tolist() == [1, -1, -1]


def test_read__exif_rotation(tmp_path: Path) -> None:
    image = Image.fromarray(_ramp(32, 32))
    exif = Image.Exif()
    exif[0x0112] = 3
    image.rotate(180).save(tmp_path / "turned.png", exif=exif)
    assert np.allclose(read(tmp_path / "turned.png", side=8), read(image, side=8), atol=0.02)


def test_read__finder_takes_the_best_face() -> None:
    best, other = (np.full((224, 224, 3), value, dtype=np.uint8) for value in (200, 10))
    seen = []

    def finder(image: np.ndarray) -> list[_Face]:
        seen.append(image.shape)
        return [_Face(best), _Face(other)]

    face = read(_ramp(20, 50), side=48, find=finder)
    assert seen == [(20, 50, 3)]
    assert float(face.mean()) == pytest.approx(200 / 127.5 - 1, abs=1e-3)


def test_read__no_face() -> None:
    with pytest.raises(MediaError, match="No face is found"):
        read(_ramp(40, 40), side=48, find=lambda image: [])


def test_read__own_finder() -> None:
    with pytest.raises(MediaError, match="No face is found"):
        read(_ramp(120, 160), side=48, find=find)


@pytest.mark.parametrize(
    ("reference", "says"),
    [
        ([], "empty list"),
        (np.zeros((20, 20)), "float64"),
        (np.zeros((20, 20, 4), dtype=np.uint8), "shape"),
        (np.zeros((0, 20), dtype=np.uint8), "shape"),
        (_ramp(20, 40), "Pass find"),
        (7, "int"),
        ("missing.png", "No such file"),
    ],
)
def test_read__invalid(reference: object, says: str) -> None:
    with pytest.raises(MediaError, match=says):
        read(reference, side=48)  # type: ignore[arg-type]


@pytest.mark.parametrize("content", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n cut"])
def test_read__damaged_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "face.png").write_bytes(content)
    with pytest.raises(MediaError, match=r"face\.png"):
        read(tmp_path / "face.png", side=48)


def test_check_layout__known_and_unknown() -> None:
    assert check_layout("invert") == "invert"
    with pytest.raises(SettingsError, match="sdedit or invert"):
        check_layout("copy")
