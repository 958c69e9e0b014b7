"""Compare shot detection with PySceneDetect on known cuts.

Sequences are cut together from the sample clips: other clips, other parts and mirror images of
the same clip, and slow zooms over a group photo that jump from face to face. Between cuts there
is what must not be taken for one: pans, zooms, camera flashes, and lights that go down.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from pipeline.video.shots import CutDetector
from tests.media_files import CARPHONE, SIX_PEOPLE

SIZE = (320, 240)
RATE = 25
BIKES = (0, 30, 76, 137, 187, 242)
"""Where the sample clip bikes.mp4 has cuts of its own, seen by eye in the frame differences."""

TOLERANCE = 1
"""Frames a found cut may stand beside the true one."""


def clip_frames(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [
            frame.to_ndarray(format="rgb24", width=SIZE[0], height=SIZE[1])
            for frame in container.decode(video=0)
        ]


def zoom(image: np.ndarray, rng: np.random.Generator, n: int) -> Iterator[np.ndarray]:
    """A window gliding over a picture."""
    height, width = image.shape[:2]
    sides = rng.uniform(0.25, 0.5, 2) * height
    starts, ends = rng.uniform(0, 1, 2), rng.uniform(0, 1, 2)
    for share in np.linspace(0, 1, n):
        side = sides[0] + (sides[1] - sides[0]) * share
        y, x = (starts + (ends - starts) * share) * (height - side, width - side * 4 / 3)
        part = image[int(y) : int(y + side), int(x) : int(x + side * 4 / 3)]
        yield cv2.resize(part, SIZE, interpolation=cv2.INTER_AREA)


def material() -> list[list[np.ndarray]]:
    """Frames of the clips, each without a cut inside."""
    bikes = clip_frames(CARPHONE.parent / "bikes.mp4")
    parts = [bikes[low:high] for low, high in itertools.pairwise(BIKES)]
    return [clip_frames(CARPHONE), clip_frames(CARPHONE.parent / "bigbuckbunny.mp4"), *parts]


def disturbed(frames: list[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
    """Add disturbances that are no cuts: flash, dimming, shaking."""
    n, effect = len(frames), rng.random()
    if effect < 0.15:
        at = int(rng.integers(1, n - 1))
        flash = cv2.add(frames[at], np.full_like(frames[at], 70))
        return [*frames[:at], flash, *frames[at + 1 :]]
    if effect < 0.3:
        levels = np.linspace(1, rng.uniform(0.3, 0.7), n)
        return [
            (frame * level).astype(np.uint8) for frame, level in zip(frames, levels, strict=True)
        ]
    if effect < 0.45:
        shifts = rng.integers(-4, 5, (n, 2))
        return [
            np.roll(frame, shift, axis=(0, 1)) for frame, shift in zip(frames, shifts, strict=True)
        ]
    return frames


def sequence(seed: int, shots: int) -> tuple[list[np.ndarray], list[int]]:
    """Frames, and the numbers of those that begin a shot (the first left out)."""
    rng = np.random.default_rng(seed)
    clips = material()
    photo = cv2.imread(str(SIX_PEOPLE))[:, :, ::-1]
    frames: list[np.ndarray] = []
    begins: list[int] = []
    before = None
    while len(begins) < shots:
        kind, mirrored = int(rng.integers(0, len(clips) + 3)), bool(rng.random() < 0.5)
        if (kind, mirrored) == before:
            continue  # from a clip into the same clip is no visible change
        before = (kind, mirrored) if kind < len(clips) else None
        n = int(rng.integers(12, 90))
        if kind < len(clips):
            n = min(n, len(clips[kind]))
            start = int(rng.integers(0, len(clips[kind]) - n + 1))
            shot = clips[kind][start : start + n]
        else:
            shot = list(zoom(photo, rng, n))
        begins.append(len(frames))
        frames += disturbed([f[:, ::-1] if mirrored else f for f in shot], rng)
    return frames, begins[1:]


def write(path: Path, frames: list[np.ndarray]) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        stream.options = {"crf": "23", "preset": "veryfast"}
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def ours(path: Path) -> list[int]:
    with av.open(str(path)) as container:
        frames = ((n, 0.0, frame) for n, frame in enumerate(container.decode(video=0)))
        return [n for n, _, _, begins in CutDetector().detect(frames) if begins]


def decode_only(path: Path) -> list[int]:
    with av.open(str(path)) as container:
        return [0 for _ in container.decode(video=0)][:0]


def theirs(make: Callable[[], Any]) -> Callable[[Path], list[int]]:
    def find(path: Path) -> list[int]:
        from scenedetect import detect

        scenes = detect(str(path), make())
        return [start.frame_num for start, _ in scenes[1:]]

    return find


def rivals() -> dict[str, Callable[[Path], list[int]]]:
    from scenedetect import AdaptiveDetector, ContentDetector, HistogramDetector

    return {
        "ours": ours,
        "PySceneDetect content": theirs(lambda: ContentDetector(min_scene_len=5)),
        "PySceneDetect adaptive": theirs(lambda: AdaptiveDetector(min_scene_len=5)),
        "PySceneDetect histogram": theirs(lambda: HistogramDetector(min_scene_len=5)),
        "decoding alone": decode_only,
    }


def matched(found: list[int], true: list[int]) -> int:
    left = list(true)
    hits = 0
    for number in found:
        near = [cut for cut in left if abs(cut - number) <= TOLERANCE]
        if near:
            left.remove(near[0])
            hits += 1
    return hits


def measure(folder: Path, *, seeds: int = 4, shots: int = 40, first: int = 100) -> dict[str, Any]:
    """Recall, precision, F1 and seconds of each detector over all sequences."""
    totals = {name: [0, 0, 0, 0.0] for name in rivals()}
    frames_of = 0
    for seed in range(first, first + seeds):
        frames, true = sequence(seed, shots)
        frames_of += len(frames)
        path = write(folder / f"cuts-{seed}.mp4", frames)
        for name, find in rivals().items():
            start = time.process_time()
            found = find(path)
            row = totals[name]
            row[3] += time.process_time() - start
            row[0] += matched(found, true)
            row[1] += len(found)
            row[2] += len(true)
    base = totals.pop("decoding alone")[3]
    rows = {}
    for name, (hits, found, true, seconds) in totals.items():
        recall, precision = hits / max(1, true), hits / max(1, found)
        rows[name] = {
            "cuts": true,
            "recall": recall,
            "precision": precision,
            "f1": 2 * recall * precision / max(1e-9, recall + precision),
            "cpu_of_decoding": seconds / base,
        }
    return {"frames": frames_of, "detectors": rows}
