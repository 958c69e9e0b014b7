"""The primary picture of HEIC and AVIF files is read whole and upright."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from pipeline.video.reader import probe, sample
from tests import media_files
from tests.pipeline.video import hdr_videos, heif_files
from warehouse.errors import MediaError


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    """A photograph whose sides are no multiples of a tile's."""
    image = cv2.imread(str(media_files.SIX_PEOPLE))[:, :, ::-1]
    return cv2.resize(image, (150, 100), interpolation=cv2.INTER_AREA)


def read(path: Path) -> np.ndarray:
    """Return the only frame, whose size the file's row names too."""
    info = probe(str(path))
    (frame,) = sample(str(path))
    assert (info.duration_s, info.fps) == (0.0, None)
    assert (info.width, info.height) == frame.size == frame.image.shape[1::-1]
    return frame.image


def difference(image: np.ndarray, expected: np.ndarray) -> float:
    assert image.shape == expected.shape
    return float(np.abs(image.astype(int) - expected).mean())


@pytest.mark.parametrize(
    ("turns", "mirrored", "thumbnail_first"),
    [(0, False, False), (1, False, False), (2, False, False), (3, False, True), (1, True, False)],
)
def test_sample__heic_in_tiles(
    tmp_path: Path, photo: np.ndarray, turns: int, mirrored: bool, thumbnail_first: bool
) -> None:
    path = heif_files.grid(
        tmp_path / "a.heic",
        photo,
        turns=turns,
        mirrored=mirrored,
        thumbnail_first=thumbnail_first,
    )
    expected = np.rot90(photo[:, ::-1] if mirrored else photo, turns)
    assert difference(read(path), expected) < 8
    assert probe(str(path)).codec == "hevc"


@pytest.mark.parametrize("orientation", [1, 3, 6, 7, 8])
def test_sample__avif_orientation(tmp_path: Path, photo: np.ndarray, orientation: int) -> None:
    from PIL import ImageOps

    tag = Image.Exif()
    tag[0x0112] = orientation
    path = tmp_path / "a.avif"
    Image.fromarray(photo).save(path, exif=tag, quality=90, speed=10)
    turned = Image.fromarray(photo)
    turned.getexif()[0x0112] = orientation
    assert difference(read(path), np.asarray(ImageOps.exif_transpose(turned))) < 8


def test_sample__picture_with_alpha(tmp_path: Path, photo: np.ndarray) -> None:
    path = tmp_path / "a.avif"
    Image.fromarray(photo).convert("RGBA").save(path, quality=90, speed=10)
    assert difference(read(path), photo) < 8


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_sample__animation_is_a_video(tmp_path: Path, mode: str) -> None:
    images = [Image.new(mode, (64, 48), (value, value, value)) for value in range(0, 250, 50)]
    path = tmp_path / "a.avif"
    images[0].save(path, save_all=True, append_images=images[1:], duration=200, speed=10)
    info, frames = probe(str(path)), list(sample(str(path)))
    assert (info.duration_s, info.note) == (1.0, None)
    assert [frame.time_s for frame in frames] == pytest.approx([0.0, 0.2, 0.4, 0.6, 0.8])
    assert [frame.image.mean() for frame in frames] == pytest.approx(range(0, 250, 50), abs=3)


def test_sample__camera_appends_a_video(tmp_path: Path, photo: np.ndarray) -> None:
    path = heif_files.grid(tmp_path / "a.heic", photo)
    clip = media_files.video(tmp_path / "b.mp4", frames=3)
    path.write_bytes(path.read_bytes() + clip.read_bytes())
    assert difference(read(path), photo) < 8


def test_sample__hdr_picture(tmp_path: Path, photo: np.ndarray) -> None:
    values = hdr_videos.coded_values(photo, transfer=hdr_videos.PQ)
    coded = np.round(255 * values).astype(np.uint8)
    path = heif_files.grid(tmp_path / "a.heic", coded, transfer=hdr_videos.PQ)
    # Coded with another matrix than the file names, so hues differ: brightness must not.
    assert read(path).std() == pytest.approx(photo.std(), rel=0.1)
    assert "tone_mapped: it is HDR (PQ)" in (probe(str(path)).note or "")


@pytest.mark.parametrize(
    ("share", "code"), [(0.5, "truncated"), (0.97, "truncated"), (0.05, "truncated")]
)
def test_probe__cut_picture(tmp_path: Path, photo: np.ndarray, share: float, code: str) -> None:
    path = heif_files.grid(tmp_path / "a.heic", photo)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(MediaError) as caught:
        probe(str(path))
    assert caught.value.got.split(": ")[0] == code


@pytest.mark.parametrize("name", [b"pitm", b"hvcC", b"dimg"])
def test_probe__damaged_picture(tmp_path: Path, photo: np.ndarray, name: bytes) -> None:
    path = heif_files.grid(tmp_path / "a.heic", photo)
    path.write_bytes(path.read_bytes().replace(name, b"free"))
    with pytest.raises(MediaError) as caught:
        probe(str(path))
    assert caught.value.got.split(": ")[0] in ("decode_error", "not_media")


def test_probe__huge_picture(tmp_path: Path, photo: np.ndarray) -> None:
    path = heif_files.grid(tmp_path / "a.heic", photo)
    path.write_bytes(
        path.read_bytes().replace(
            (150).to_bytes(4, "big") + (100).to_bytes(4, "big"), b"\x00\x00\x75\x30" * 2
        )
    )
    with pytest.raises(MediaError) as caught:
        probe(str(path))
    assert caught.value.got.split(": ")[0] in ("too_large", "decode_error")
