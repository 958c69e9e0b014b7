"""Every face of every sampled frame, with as few looks at whole pictures as that takes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from pipeline.faces.detect import LONGEST_SIDE, Detector
from pipeline.faces.detect.shape import NEAR_SIDE, overlap
from pipeline.faces.video import Frame
from warehouse.errors import MediaError

WHOLE_EVERY_S = 1.0
"""At most this long between looks at the whole picture; who comes and goes in between, while
nobody else does, is missed."""

_HELD_BYTES = 256_000_000
_BYTES_PER_PIXEL = 4.5
"""A held frame as FFmpeg keeps it, and its RGB picture once somebody looked."""

_FAR = 1.5
_GROWN = 1.6
_SAME_FACE = 0.5


@dataclass(frozen=True, eq=False)
class Sight:
    """One frame and the faces in it.

    Attributes:
        boxes: float32[n, 5], ``x1 y1 x2 y2 score`` in pixels of the frame.
        keypoints: float32[n, 5, 2] in pixels of the frame.
        whole: the whole picture was looked at, not only where faces were expected.
    """

    frame: Frame
    boxes: np.ndarray
    keypoints: np.ndarray
    whole: bool


def watch(frames: Iterable[Frame], *, detector: Detector, fps: float) -> Iterator[Sight]:
    """Each frame with its faces, in order.

    The first and the last frame of every second are looked at whole. Between them, halving as a
    binary search does, faces are sought only where both ends say they should be; where an end
    misses a face that the other has, or a face is not where it should be, the whole picture is
    looked at again. A second in which nobody comes or goes costs one whole look; somebody who
    comes costs the logarithm of the samples in it. A cut ends the span.

    Args:
        fps: samples per second, at most.
    """
    held: list[Frame] = []
    first: Sight | None = None
    source, broken = iter(frames), None
    while True:
        try:
            frame = next(source, None)
        except MediaError as error:  # what came before it counts
            frame, broken = None, error
        if frame is None or frame.cut:
            yield from _span(held, first, detector)
            held, first = [], None
        if frame is None:
            break
        held.append(frame)
        if len(held) > _longest_span(frame, fps):
            *sights, first = _span(held, first, detector)
            held = [frame]
            yield from sights
    if broken:
        raise broken


def _longest_span(frame: Frame, fps: float) -> int:
    """Steps between whole looks: frames of a second, or fewer when they are large."""
    width, height = frame.picture.size
    room = int(_HELD_BYTES / (_BYTES_PER_PIXEL * width * height))
    return max(1, min(round(fps * WHOLE_EVERY_S), room))


def _span(frames: list[Frame], first: Sight | None, detector: Detector) -> list[Sight]:
    if not frames:
        return []
    seen: dict[int, Sight] = {0: first or _whole(frames[0], detector)}
    last = len(frames) - 1
    if last:
        seen[last] = _whole(frames[last], detector)
    _between(frames, seen, 0, last, detector=detector)
    return [seen[position] for position in range(len(frames))]


def _between(
    frames: list[Frame], seen: dict[int, Sight], low: int, high: int, *, detector: Detector
) -> None:
    if high - low < 2:
        return
    middle = (low + high) // 2
    frame = frames[middle]
    expected = _expected(seen[low], seen[high], (middle - low) / (high - low))
    found = None if expected is None else _near(frame, expected, detector)
    seen[middle] = found or _whole(frame, detector)
    _between(frames, seen, low, middle, detector=detector)
    _between(frames, seen, middle, high, detector=detector)


def _whole(frame: Frame, detector: Detector) -> Sight:
    image = frame.picture.small(LONGEST_SIDE)
    boxes, keypoints = detector.detect(image)
    grown = np.array(frame.picture.size, dtype=np.float32) / image.shape[1::-1]
    boxes = boxes * np.append(np.tile(grown, 2), np.float32(1))
    return Sight(frame, boxes, keypoints * grown, whole=True)


def _near(frame: Frame, expected: np.ndarray, detector: Detector) -> Sight | None:
    """What is where faces are expected; None if one is not, or if a whole look costs less."""
    width, height = frame.picture.size
    shrink = min(1.0, LONGEST_SIDE / max(width, height))
    if len(expected) * NEAR_SIDE**2 >= width * height * shrink**2:
        return None
    if not len(expected):
        none = np.empty((0, 5), np.float32), np.empty((0, 5, 2), np.float32)
        return Sight(frame, *none, whole=False)
    boxes, keypoints = detector.near(frame.image, expected)
    if (boxes[:, 4] <= 0).any() or _two_are_one(boxes):
        return None
    return Sight(frame, boxes, keypoints, whole=False)


def _expected(low: Sight, high: Sight, share: float) -> np.ndarray | None:
    """Where faces should be between two frames, float[n, 4]; None if the frames disagree on who
    is there."""
    if len(low.boxes) != len(high.boxes):
        return None
    before, after = low.boxes[:, :4], high.boxes[:, :4]
    partner = _partners(before, after)
    if partner is None:
        return None
    return before * (1 - share) + after[partner] * share


def _partners(before: np.ndarray, after: np.ndarray) -> list[int] | None:
    """For each box the one it became: nearest first, within reach, of about its size."""
    if not len(before):
        return []
    size = np.sqrt(np.prod(before[:, 2:] - before[:, :2], axis=1).clip(1e-6))
    sizes = np.sqrt(np.prod(after[:, 2:] - after[:, :2], axis=1).clip(1e-6))
    middle, middles = before[:, :2] + before[:, 2:], after[:, :2] + after[:, 2:]
    apart = np.linalg.norm(middle[:, None] - middles[None], axis=2) / 2 / size[:, None]
    grown = np.maximum(size[:, None] / sizes[None], sizes[None] / size[:, None])
    apart[(apart > _FAR) | (grown > _GROWN)] = np.inf
    partner = [-1] * len(before)
    for flat in np.argsort(apart, axis=None, kind="stable"):
        row, column = divmod(int(flat), len(after))
        if not np.isfinite(apart[row, column]):
            break
        if partner[row] < 0 and column not in partner:
            partner[row] = column
    return None if -1 in partner else partner


def _two_are_one(boxes: np.ndarray) -> bool:
    return any((overlap(box, boxes[row + 1 :]) > _SAME_FACE).any() for row, box in enumerate(boxes))
