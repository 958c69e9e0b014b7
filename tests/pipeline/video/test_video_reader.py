"""Frames are upright, at their true times; missing parts are errors."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from pipeline.video.reader import Frame, VideoInfo, probe, sample
from tests import media_files
from warehouse.errors import MediaError

RED, BLACK, BLUE = (254, 0, 0), (0, 0, 0), (0, 0, 254)


def corners(height: int = 48, width: int = 64) -> np.ndarray:
    """Red at the top left, blue at the bottom right, black elsewhere."""
    image = np.zeros((height, width, 3), np.uint8)
    image[: height // 2, : width // 2] = RED
    image[height // 2 :, width // 2 :] = BLUE
    return image


def colour(image: np.ndarray, *, top: bool, left: bool) -> str:
    pixel = image[5 if top else -6, 5 if left else -6].astype(int)
    names = {"red": RED, "black": BLACK, "blue": BLUE}
    return min(names, key=lambda name: int(np.abs(pixel - names[name]).sum()))


def turned_mp4(path: Path, *, matrix: tuple[int, int, int, int]) -> Path:
    """Write ``corners`` as MP4 with a display matrix, as phones do."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.bit_rate = 1_000_000
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(corners(), format="rgb24")))
        container.mux(stream.encode(None))
    data = bytearray(path.read_bytes())
    # tkhd, version 0: 4 bytes of name, 4 of version, 20 of times and length, 16 of layer.
    start = data.index(b"tkhd") + 4 + 4 + 20 + 16
    a, b, c, d = matrix
    data[start : start + 36] = struct.pack(
        ">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30
    )
    path.write_bytes(data)
    return path


def read(path: Path, *, fps: float = 5.0) -> tuple[list[Frame], str | None]:
    """Every frame that came, and what was said in the end."""
    frames = []
    try:
        for frame in sample(str(path), fps=fps):
            frames.append(frame)
    except MediaError as error:
        return frames, error.got
    return frames, None


def test_probe__video(tmp_path: Path) -> None:
    facts = probe(str(media_files.video(tmp_path / "a.mp4", frames=20, fps=10)))
    assert facts == VideoInfo(
        duration_s=2.0,
        fps=10.0,
        width=160,
        height=120,
        rotation=0,
        codec="mpeg4",
        has_audio=False,
    )


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "ts", "mov"])
def test_sample__constant_rate(tmp_path: Path, suffix: str) -> None:
    frames, said = read(media_files.video(tmp_path / f"a.{suffix}", frames=20, fps=10))
    assert said is None
    assert [frame.index for frame in frames] == list(range(0, 20, 2))
    assert [frame.time_s for frame in frames] == pytest.approx(np.arange(10) * 0.2)
    assert all(frame.image.shape == (120, 160, 3) for frame in frames)
    assert frames[3].image[60, 70].mean() > frames[3].image[60, 150].mean() + 80


@pytest.mark.parametrize(
    ("fps", "expected"),
    [(5.0, [0, 3, 4, 7]), (2.0, [0, 3, 4, 7]), (1.0, [0, 4, 7]), (100.0, list(range(8)))],
)
def test_sample__variable_rate(tmp_path: Path, fps: float, expected: list[int]) -> None:
    times = [0, 50, 100, 600, 1000, 1010, 1020, 2500]
    frames, said = read(media_files.video(tmp_path / "vfr.mp4", times=times), fps=fps)
    assert said is None
    assert [frame.index for frame in frames] == expected
    assert [frame.time_s for frame in frames] == pytest.approx([times[i] / 1000 for i in expected])


@pytest.mark.parametrize(
    ("matrix", "rotation", "size", "red"),
    [
        ((1, 0, 0, 1), 0, (64, 48), (True, True)),
        ((0, 1, -1, 0), 90, (48, 64), (True, False)),
        ((-1, 0, 0, -1), 180, (64, 48), (False, False)),
        ((0, -1, 1, 0), 270, (48, 64), (False, True)),
    ],
)
def test_sample__rotated_video(
    tmp_path: Path,
    matrix: tuple[int, int, int, int],
    rotation: int,
    size: tuple[int, int],
    red: tuple[bool, bool],
) -> None:
    path = turned_mp4(tmp_path / "turned.mp4", matrix=matrix)
    facts = probe(str(path))
    assert (facts.rotation, facts.width, facts.height) == (rotation, *size)
    image = read(path)[0][0].image
    assert image.shape == (size[1], size[0], 3)
    assert colour(image, top=red[0], left=red[1]) == "red"
    assert colour(image, top=not red[0], left=not red[1]) == "blue"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_sample__exif_orientation(tmp_path: Path, orientation: int) -> None:
    from PIL import ImageOps

    tag = Image.Exif()
    tag[0x0112] = orientation
    path = tmp_path / "photo.jpg"
    Image.fromarray(corners()).save(path, exif=tag, quality=95)
    wanted = np.asarray(ImageOps.exif_transpose(Image.open(path)))
    (frame,), said = read(path)
    assert said is None
    assert (frame.index, frame.time_s) == (0, 0.0)
    assert frame.image.shape == wanted.shape
    assert np.abs(frame.image.astype(int) - wanted).mean() < 3
    facts = probe(str(path))
    assert (facts.duration_s, facts.fps) == (0.0, None)
    assert (facts.height, facts.width) == wanted.shape[:2]


STILLS = ("a.png", "a.webp", "a.bmp", "a.tiff", "a.jpg", "take%03d 1.png")


@pytest.mark.parametrize(
    ("name", "mode"),
    [(name, mode) for name in STILLS for mode in ("RGB", "L", "RGBA")
     if (name, mode) != ("a.jpg", "RGBA")],
)  # fmt: skip
def test_sample__still_image(tmp_path: Path, name: str, mode: str) -> None:
    picture = Image.fromarray(corners()).convert(mode)
    picture.save(tmp_path / name)
    (frame,), said = read(tmp_path / name)
    assert said is None
    assert frame.image.shape == (48, 64, 3)
    wanted = np.asarray(picture.convert("RGB")).astype(int)
    # Near the colour edges JPEG and WebP blur; away from them they agree.
    assert np.abs(frame.image[5, 5] - wanted[5, 5]).max() < 12
    assert np.abs(frame.image[5, -6] - wanted[5, -6]).max() < 12


def test_sample__animation(tmp_path: Path) -> None:
    first = Image.fromarray(corners())
    rest = [Image.fromarray(np.full((48, 64, 3), value, np.uint8)) for value in (40, 120, 200)]
    first.save(tmp_path / "a.gif", save_all=True, append_images=rest, duration=500)
    frames, said = read(tmp_path / "a.gif")
    assert said is None
    assert [frame.time_s for frame in frames] == pytest.approx([0.0, 0.5, 1.0, 1.5])
    assert frames[2].image.mean() == pytest.approx(120, abs=2)


def test_sample__pixel_aspect_ratio() -> None:
    # Stored 176 x 144 with pixels 128:117 wide.
    facts = probe(str(media_files.CARPHONE))
    assert (facts.width, facts.height) == (193, 144)
    frame = next(sample(str(media_files.CARPHONE)))
    assert frame.image.shape == (144, 193, 3)


def refused(folder: Path, kind: str) -> Path:
    """One bad file of a kind."""
    path = folder / f"{kind}.mp4"
    whole = media_files.video(folder / "whole.mp4").read_bytes()
    match kind:
        case "cut":
            path.write_bytes(whole[: len(whole) // 2])
        case "text":
            path.write_text("no video\n" * 100)
        case "playlist":
            path.write_text("ffconcat version 1.0\nfile whole.mp4\n")
        case "sound":
            media_files.sound_only(path)
        case "heic":
            path.write_bytes(
                struct.pack(">I4s4sI4s", 20, b"ftyp", b"heic", 0, b"mif1") + b"\0" * 99
            )
        case "tiny":
            cv2.imwrite(str(folder / "tiny.png"), np.zeros((1, 1, 3), np.uint8))
            return folder / "tiny.png"
        case "huge":
            Image.new("1", (20_000, 6_000)).save(folder / "huge.png")
            return folder / "huge.png"
        case "folder":
            path.mkdir()
        case ".jpg" | ".png" | ".webp" | ".bmp" | ".tiff":
            noise = np.random.default_rng(0).integers(0, 255, (96, 96, 3), dtype=np.uint8)
            path = folder / f"half{kind}"
            Image.fromarray(noise).save(path)
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("cut", "truncated"),
        ("text", "not_media"),
        ("playlist", "not_media"),
        ("sound", "no_video_stream"),
        ("heic", "not_media"),
        ("tiny", "too_small"),
        ("huge", "too_large"),
        ("folder", "unreadable"),
        ("absent", "unreadable"),
        (".jpg", "decode_error"),
        (".png", "decode_error"),
        (".webp", "decode_error"),
        (".bmp", "decode_error"),
        (".tiff", "decode_error"),
    ],
)
def test_probe__unreadable_file(tmp_path: Path, kind: str, code: str) -> None:
    path = refused(tmp_path, kind)
    with pytest.raises(MediaError) as caught:
        probe(str(path))
    assert caught.value.got.split(": ")[0] == code
    frames, said = read(path)
    assert frames == []
    assert said == caught.value.got


@pytest.mark.parametrize("suffix", ["mkv", "avi", "mp4"])
def test_sample__truncated_video(tmp_path: Path, suffix: str) -> None:
    import av

    path = tmp_path / f"a.{suffix}"
    noise = np.random.default_rng(0).integers(0, 255, (40, 48, 64, 3), dtype=np.uint8)
    # The index in front, as for streaming: only the end of the pictures is lost.
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("mjpeg", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        for image in noise:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    frames, said = read(path)
    assert 5 <= len(frames) <= 11
    assert said is not None
    assert said.startswith("truncated: it ends at")


def test_sample__damaged_middle(tmp_path: Path) -> None:
    path = media_files.video(tmp_path / "a.avi", frames=60, fps=10)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 1500] = b"\xff" * 1500
    path.write_bytes(data)
    frames, said = read(path)
    assert said is not None
    assert said.split(": ")[0] in ("decode_error", "truncated")
    assert frames[0].time_s == 0.0
    assert len(frames) >= 10
