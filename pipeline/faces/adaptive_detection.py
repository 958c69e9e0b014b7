"""Every face of every sampled frame, with as few looks at whole pictures as that takes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from pipeline.faces.detect import LONGEST_SIDE, Detector
from pipeline.faces.detect.base import NEAR_SIDE, WIDE_SIDE, overlap
from pipeline.video.reader import Frame
from warehouse.errors import MediaError

WHOLE_EVERY_S = 1.0
"""At most this long between looks at the whole picture; who comes and goes in between, while
nobody else does, is missed."""

_HELD_BYTES = 256_000_000
_BYTES_PER_PIXEL = 4.5
"""A held frame as FFmpeg keeps it, and its RGB picture once somebody looked."""

_FOLLOWED = 6
"""Over more frames halving comes first: one frame that hides a face must not hide all before."""

_Faces = tuple[np.ndarray, np.ndarray]
_NOTHING: _Faces = np.empty((0, 5), np.float32), np.empty((0, 5, 2), np.float32)

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
    binary search does, faces are sought only where both ends say they should be. A face that
    only one end has is followed from there over the last few frames, until it is out of sight.
    Where a face is not near the place it should be, the whole picture is looked at again. A
    second in which nobody comes or goes costs one whole look; somebody who does costs one or two
    more at five samples a second. A cut ends the span.

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
        if len(held) > 1 and _is_long(held, fps):
            *sights, first = _span(held, first, detector)
            held = [frame]
            yield from sights
    if broken:
        raise broken


def _is_long(held: list[Frame], fps: float) -> bool:
    """Whether a second has passed, or as many frames are held as there is room for."""
    width, height = held[-1].picture.size
    room = int(_HELD_BYTES / (_BYTES_PER_PIXEL * width * height))
    # Samples lie where the stream has frames, so a second of them is short or long by a little.
    passed = held[-1].time_s - held[0].time_s >= WHOLE_EVERY_S - 0.5 / fps
    return passed or len(held) > room


def _span(frames: list[Frame], first: Sight | None, detector: Detector) -> list[Sight]:
    if not frames:
        return []
    seen: dict[int, Sight] = {0: first or _whole(frames[0], detector)}
    last = len(frames) - 1
    if last:
        seen[last] = _whole(frames[last], detector)
    _between(frames, seen, detector=detector)
    return [seen[position] for position in range(len(frames))]


def _between(frames: list[Frame], seen: dict[int, Sight], *, detector: Detector) -> None:
    """Fill in what lies between the first frame and the last; all of one halving at once."""
    spans = [(0, len(frames) - 1)]
    while spans := [(low, high) for low, high in spans if high - low > 1]:
        plans = [_plan(seen, low, high) for low, high in spans]
        seen |= zip((plan.at for plan in plans), _looks(frames, plans, detector), strict=True)
        spans = [
            half
            for (low, high), plan in zip(spans, plans, strict=True)
            for half in ((low, plan.at), (plan.at, high))
        ]


@dataclass(frozen=True, eq=False)
class _Plan:
    """Which frame is looked at next, and where.

    Attributes:
        expected: float[n, 4], where faces should be.
        loose: float[m, 4], where others were a moment before or after.
        told: the ends agree so far that looking there is enough.
    """

    at: int
    expected: np.ndarray
    loose: np.ndarray
    told: bool


def _plan(seen: dict[int, Sight], low: int, high: int) -> _Plan:
    (before, after), gone, come = _changes(seen[low].boxes, seen[high].boxes)
    told, at = not (len(gone) and len(come)), (low + high) // 2
    if told and high - low <= _FOLLOWED:
        # Somebody new is followed back, and somebody who leaves forth, until out of sight.
        at = high - 1 if len(come) else low + 1 if len(gone) else at
    share = (at - low) / (high - low)
    expected = before * (1 - share) + after * share
    return _Plan(at, expected, np.concatenate([gone, come]), told)


def _looks(frames: list[Frame], plans: list[_Plan], detector: Detector) -> list[Sight]:
    near = [plan for plan in plans if plan.told and _is_cheap(frames[plan.at], plan)]
    found = dict(zip((plan.at for plan in near), _near(frames, near, detector), strict=True))
    return [found.get(plan.at) or _whole(frames[plan.at], detector) for plan in plans]


def _is_cheap(frame: Frame, plan: _Plan) -> bool:
    """Whether looking at the places costs less than looking at the whole."""
    width, height = frame.picture.size
    shrink = min(1.0, LONGEST_SIDE / max(width, height))
    cost = len(plan.expected) * NEAR_SIDE**2 + len(plan.loose) * WIDE_SIDE**2
    return cost < width * height * shrink**2


def _whole(frame: Frame, detector: Detector) -> Sight:
    image = frame.picture.small(LONGEST_SIDE)
    boxes, keypoints = detector.detect(image)
    grown = np.array(frame.picture.size, dtype=np.float32) / image.shape[1::-1]
    boxes = boxes * np.append(np.tile(grown, 2), np.float32(1))
    return Sight(frame, boxes, keypoints * grown, whole=True)


def _near(frames: list[Frame], plans: list[_Plan], detector: Detector) -> list[Sight | None]:
    """What is where faces are expected; None where one is not."""
    found: dict[int, Sight | None] = {
        plan.at: Sight(frames[plan.at], *_NOTHING, whole=False) for plan in plans
    }
    # Nobody expected is nothing to look at, nor to make a picture for.
    asked = [plan for plan in plans if len(plan.expected) or len(plan.loose)]
    if asked:
        images = [frames[plan.at].image for plan in asked]
        sure = detector.near(images, [plan.expected for plan in asked])
        sought = [
            np.concatenate([plan.expected[boxes[:, 4] <= 0], plan.loose])
            for plan, (boxes, _) in zip(asked, sure, strict=True)
        ]
        further = detector.near(images, sought, side=WIDE_SIDE)
        for plan, here, there in zip(asked, sure, further, strict=True):
            found[plan.at] = _joined(frames[plan.at], here, there)
    return [found[plan.at] for plan in plans]


def _joined(frame: Frame, near: _Faces, wide: _Faces) -> Sight | None:
    """What both looks found; None if a face is missing, or two places gave the same one."""
    there = near[0][:, 4] > 0
    boxes, keypoints = (
        np.concatenate([one[there], other]) for one, other in zip(near, wide, strict=True)
    )
    if (boxes[:, 4] <= 0).any() or _two_are_one(boxes):
        return None
    return Sight(frame, boxes, keypoints, whole=False)


def _changes(
    low: np.ndarray, high: np.ndarray
) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray, np.ndarray]:
    """Boxes float[n, 4] of those who stay, before and after; of those who go; who come."""
    before, after = low[:, :4], high[:, :4]
    partner = _partners(before, after)
    stay = partner >= 0
    come = np.ones(len(after), dtype=bool)
    come[partner[stay]] = False
    return (before[stay], after[partner[stay]]), before[~stay], after[come]


def _partners(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """For each box the one it became, int[n]: nearest first, within reach, of about its size;
    -1 for none."""
    partner = np.full(len(before), -1)
    if not len(before) or not len(after):
        return partner
    size = np.sqrt(np.prod(before[:, 2:] - before[:, :2], axis=1).clip(1e-6))
    sizes = np.sqrt(np.prod(after[:, 2:] - after[:, :2], axis=1).clip(1e-6))
    middle, middles = before[:, :2] + before[:, 2:], after[:, :2] + after[:, 2:]
    apart = np.linalg.norm(middle[:, None] - middles[None], axis=2) / 2 / size[:, None]
    grown = np.maximum(size[:, None] / sizes[None], sizes[None] / size[:, None])
    apart[(apart > _FAR) | (grown > _GROWN)] = np.inf
    for flat in np.argsort(apart, axis=None, kind="stable"):
        row, column = divmod(int(flat), len(after))
        if not np.isfinite(apart[row, column]):
            break
        if partner[row] < 0 and column not in partner:
            partner[row] = column
    return partner


def _two_are_one(boxes: np.ndarray) -> bool:
    return any((overlap(box, boxes[row + 1 :]) > _SAME_FACE).any() for row, box in enumerate(boxes))
