"""Detect the faces of every sampled frame with few full-frame passes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from pipeline.faces.detect.base import LONGEST_SIDE, NEAR_SIDE, WIDE_SIDE, Detector, overlap
from pipeline.video.reader import Frame
from warehouse.errors import MediaError

FULL_EVERY_S = 1.0
"""Longest time between full-frame passes. A face that appears and disappears in between, while
no other face changes, is missed."""

_BUFFER_BYTES = 256_000_000
_BYTES_PER_PIXEL = 4.5
"""A buffered frame as FFmpeg stores it, and its RGB image once converted."""

_MAX_FOLLOWED = 6
"""Follow a new or lost face frame by frame only across this many frames; halve longer spans
first, so that one frame without the face does not hide it in all frames before."""

_MAX_DISTANCE = 1.5
_MAX_GROWTH = 1.6
_SAME_FACE_IOU = 0.5

_Faces = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, eq=False)
class FrameFaces:
    """One frame and the faces in it.

    Attributes:
        boxes: float32[n, 5], ``x1 y1 x2 y2 score`` in pixels of the frame.
        keypoints: float32[n, 5, 2] in pixels of the frame.
        full: whether the full frame was searched, not only the expected places.
    """

    frame: Frame
    boxes: np.ndarray
    keypoints: np.ndarray
    full: bool


def detect_frames(
    frames: Iterable[Frame], *, detector: Detector, fps: float
) -> Iterator[FrameFaces]:
    """Yield each frame with its faces, in order.

    Search the first and the last frame of every second completely. Between them, halve the span
    as a binary search does and search only where both ends have a face. A face that only one end
    has is followed from there across the last few frames, until it is not found. If a face is
    not near its expected place, search the full frame. A second without changes costs one
    full-frame pass; a face that enters or leaves costs one or two more at five samples a second.
    A cut ends the span.

    Args:
        fps: samples per second, at most.
    """
    buffer: list[Frame] = []
    first: FrameFaces | None = None
    source, broken = iter(frames), None
    while True:
        try:
            frame = next(source, None)
        except MediaError as error:  # raised again after the frames before it
            frame, broken = None, error
        if frame is None or frame.cut:
            yield from _detect_span(buffer, first, detector)
            buffer, first = [], None
        if frame is None:
            break
        buffer.append(frame)
        if len(buffer) > 1 and _is_full(buffer, fps):
            *results, first = _detect_span(buffer, first, detector)
            buffer = [frame]
            yield from results
    if broken:
        raise broken


def _is_full(buffer: list[Frame], fps: float) -> bool:
    """Return whether a second has passed or the memory limit is reached."""
    width, height = buffer[-1].size
    capacity = int(_BUFFER_BYTES / (_BYTES_PER_PIXEL * width * height))
    # Samples lie where the stream has frames, so a second of them varies a little in length.
    passed = buffer[-1].time_s - buffer[0].time_s >= FULL_EVERY_S - 0.5 / fps
    return passed or len(buffer) > capacity


def _detect_span(
    frames: list[Frame], first: FrameFaces | None, detector: Detector
) -> list[FrameFaces]:
    """Detect the faces of a span; ``first`` is a known result of frame 0."""
    if not frames:
        return []
    found: dict[int, FrameFaces] = {0: first or _detect_full(frames[0], detector)}
    last = len(frames) - 1
    if last:
        found[last] = _detect_full(frames[last], detector)
    spans = [(0, last)]
    while spans := [(low, high) for low, high in spans if high - low > 1]:
        # All spans of one halving go through the detector together.
        plans = [_plan(found, low, high) for low, high in spans]
        found |= zip((plan.at for plan in plans), _search(frames, plans, detector), strict=True)
        spans = [
            half
            for (low, high), plan in zip(spans, plans, strict=True)
            for half in ((low, plan.at), (plan.at, high))
        ]
    return [found[position] for position in range(len(frames))]


@dataclass(frozen=True, eq=False)
class _Plan:
    """Which frame to search next, and where.

    Attributes:
        expected: float[n, 4], interpolated boxes of faces that both ends have.
        possible: float[m, 4], boxes of faces that one end has.
        local: whether searching these places is enough.
    """

    at: int
    expected: np.ndarray
    possible: np.ndarray
    local: bool


def _plan(found: dict[int, FrameFaces], low: int, high: int) -> _Plan:
    (before, after), lost, new = _match(found[low].boxes, found[high].boxes)
    local, at = not (len(lost) and len(new)), (low + high) // 2
    if local and high - low <= _MAX_FOLLOWED:
        # Follow a new face backwards and a lost one forwards.
        at = high - 1 if len(new) else low + 1 if len(lost) else at
    share = (at - low) / (high - low)
    expected = before * (1 - share) + after * share
    return _Plan(at, expected, np.concatenate([lost, new]), local)


def _search(frames: list[Frame], plans: list[_Plan], detector: Detector) -> list[FrameFaces]:
    local = [plan for plan in plans if plan.local and _is_cheaper(frames[plan.at], plan)]
    found = dict(
        zip((plan.at for plan in local), _detect_local(frames, local, detector), strict=True)
    )
    return [found.get(plan.at) or _detect_full(frames[plan.at], detector) for plan in plans]


def _is_cheaper(frame: Frame, plan: _Plan) -> bool:
    """Return whether the places have fewer pixels than the full frame."""
    width, height = frame.size
    shrink = min(1.0, LONGEST_SIDE / max(width, height))
    cost = len(plan.expected) * NEAR_SIDE**2 + len(plan.possible) * WIDE_SIDE**2
    return cost < width * height * shrink**2


def _detect_full(frame: Frame, detector: Detector) -> FrameFaces:
    image = frame.small(LONGEST_SIDE)
    boxes, keypoints = detector.detect(image)
    scale = np.array(frame.size, dtype=np.float32) / image.shape[1::-1]
    boxes = boxes * np.append(np.tile(scale, 2), np.float32(1))
    return FrameFaces(frame, boxes, keypoints * scale, full=True)


def _detect_local(
    frames: list[Frame], plans: list[_Plan], detector: Detector
) -> list[FrameFaces | None]:
    """Search the places of each plan; None if an expected face is not there."""
    nothing = np.empty((0, 5), np.float32), np.empty((0, 5, 2), np.float32)
    found: dict[int, FrameFaces | None] = {
        plan.at: FrameFaces(frames[plan.at], *nothing, full=False) for plan in plans
    }
    # A frame without places needs neither the detector nor its RGB image.
    searched = [plan for plan in plans if len(plan.expected) or len(plan.possible)]
    if searched:
        images = [frames[plan.at].image for plan in searched]
        near = detector.detect_near(images, [plan.expected for plan in searched])
        remaining = [
            np.concatenate([plan.expected[boxes[:, 4] <= 0], plan.possible])
            for plan, (boxes, _) in zip(searched, near, strict=True)
        ]
        wide = detector.detect_near(images, remaining, side=WIDE_SIDE)
        for plan, close, wider in zip(searched, near, wide, strict=True):
            found[plan.at] = _joined(frames[plan.at], close, wider)
    return [found[plan.at] for plan in plans]


def _joined(frame: Frame, near: _Faces, wide: _Faces) -> FrameFaces | None:
    """Join both results; None if a face is missing or found twice."""
    there = near[0][:, 4] > 0
    boxes, keypoints = (
        np.concatenate([one[there], other]) for one, other in zip(near, wide, strict=True)
    )
    same = any(
        (overlap(box, boxes[row + 1 :]) > _SAME_FACE_IOU).any() for row, box in enumerate(boxes)
    )
    if (boxes[:, 4] <= 0).any() or same:
        return None
    return FrameFaces(frame, boxes, keypoints, full=False)


def _match(
    low: np.ndarray, high: np.ndarray
) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray, np.ndarray]:
    """Match faces.

    Returns:
        boxes float[n, 4] of matched faces before and after, of lost faces and of new faces.
    """
    before, after = low[:, :4], high[:, :4]
    partner = _partners(before, after)
    matched = partner >= 0
    new = np.ones(len(after), dtype=bool)
    new[partner[matched]] = False
    return (before[matched], after[partner[matched]]), before[~matched], after[new]


def _partners(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Match boxes greedily by distance.

    Returns:
        int[n], row of ``after`` for each box; -1 without a partner. Partners are at most
        ``_MAX_DISTANCE`` box sizes apart and of similar size.
    """
    partner = np.full(len(before), -1)
    if not len(before) or not len(after):
        return partner
    size = np.sqrt(np.prod(before[:, 2:] - before[:, :2], axis=1).clip(1e-6))
    sizes = np.sqrt(np.prod(after[:, 2:] - after[:, :2], axis=1).clip(1e-6))
    middle, middles = before[:, :2] + before[:, 2:], after[:, :2] + after[:, 2:]
    apart = np.linalg.norm(middle[:, None] - middles[None], axis=2) / 2 / size[:, None]
    grown = np.maximum(size[:, None] / sizes[None], sizes[None] / size[:, None])
    apart[(apart > _MAX_DISTANCE) | (grown > _MAX_GROWTH)] = np.inf
    for flat in np.argsort(apart, axis=None, kind="stable"):
        row, column = divmod(int(flat), len(after))
        if not np.isfinite(apart[row, column]):
            break
        if partner[row] < 0 and column not in partner:
            partner[row] = column
    return partner
