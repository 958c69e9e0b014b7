"""Adaptive detection finds the same faces with few full passes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import av
import numpy as np
import pytest

from pipeline.faces import detect
from pipeline.faces.adaptive_detection import FrameFaces, detect_frames
from pipeline.faces.detect.base import NEAR_SIDE, WIDE_SIDE, cutout, overlap
from pipeline.video import reader
from tests import media_files
from warehouse.errors import MediaError

Scene = list[dict[str, float]]
"""Per frame: who is there, at which x; all faces are 40 px and stand in the same row."""

WIDTH, HEIGHT = 640, 480


@dataclass
class SceneDetector:
    """Detector that knows the scene; pixels hold the frame's number."""

    scene: Scene
    name: str = "scene"
    whole: list[int] = field(default_factory=list)

    def _boxes(self, image: np.ndarray) -> np.ndarray:
        places = self.scene[int(image[0, 0, 0])].values()
        rows = [(x, 100.0, x + 40, 140.0, 0.9) for x in places]
        return np.array(rows, np.float32).reshape(-1, 5)

    def detect(self, image: np.ndarray, max_num: int = 0) -> tuple[np.ndarray, np.ndarray]:
        self.whole.append(int(image[0, 0, 0]))
        boxes = self._boxes(image)
        return boxes, np.zeros((len(boxes), 5, 2), np.float32)

    def detect_near(
        self,
        images: Sequence[np.ndarray],
        expected: Sequence[np.ndarray],
        *,
        side: int = NEAR_SIDE,
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        return [self._near(*one, side=side) for one in zip(images, expected, strict=True)]

    def _near(
        self, image: np.ndarray, expected: np.ndarray, *, side: int
    ) -> tuple[np.ndarray, np.ndarray]:
        boxes = self._boxes(image)
        reach = 12 if side == NEAR_SIDE else 44
        found = np.zeros((len(expected), 5), np.float32)
        for row, box in enumerate(expected):
            apart = np.abs(boxes[:, 0] - box[0])
            if len(boxes) and apart.min() <= reach:
                found[row] = boxes[apart.argmin()]
        return found, np.zeros((len(expected), 5, 2), np.float32)


def frames(scene: Scene, *, cuts: tuple[int, ...] = ()) -> Iterator[reader.Frame]:
    for number in range(len(scene)):
        image = np.full((HEIGHT, WIDTH, 3), number, np.uint8)
        source = av.VideoFrame.from_ndarray(image, format="rgb24")
        yield reader.Frame(number, number / 8, source, cut=number in cuts)


def seen(scene: Scene, *, cuts: tuple[int, ...] = ()) -> tuple[list[FrameFaces], SceneDetector]:
    detector = SceneDetector(scene)
    return list(detect_frames(frames(scene, cuts=cuts), detector=detector, fps=8.0)), detector


STILL: Scene = [{"ada": 100.0}] * 33
WALKS: Scene = [{"ada": 100.0 + 14 * n} for n in range(33)]
COMES: Scene = [{"ada": 100.0} | ({"bob": 400.0} if n >= 11 else {}) for n in range(33)]
COMES_WALKING: Scene = [
    {"ada": 100.0} | ({"bob": 600.0 - 5 * (n - 11)} if n >= 11 else {}) for n in range(33)
]
GOES: Scene = [{"ada": 100.0} | ({"bob": 400.0} if n < 11 else {}) for n in range(33)]
SWAPS: Scene = [{"ada": 100.0} if n < 11 else {"bob": 400.0} for n in range(33)]
DASHES: Scene = [{"ada": 20.0 + 90 * n} for n in range(7)] + [{}] * 26
STOPS: Scene = [{"ada": 100.0 + 20 * min(n, 3)} for n in range(33)]
BLINKS: Scene = [{} if n in (13, 14) else {"ada": 100.0} for n in range(33)]
PASSES: Scene = [{"ada": 100 + 10.0 * n, "bob": 420 - 10.0 * n} for n in range(33)]


@pytest.mark.parametrize(
    ("scene", "cuts", "whole"),
    [
        pytest.param([], (), 0, id="nothing"),
        pytest.param(STILL[:1], (), 1, id="one frame"),
        pytest.param(STILL[:2], (), 2, id="two frames"),
        pytest.param(STILL, (), 5, id="standing still"),
        pytest.param(STILL, (12,), 7, id="a cut"),
        pytest.param(WALKS, (), 9, id="walking fast"),
        pytest.param(STOPS, (), 5, id="not where the middle is, but beside it"),
        pytest.param(COMES, (), 7, id="a face enters"),
        pytest.param(COMES_WALKING, (), 7, id="a face enters walking"),
        pytest.param(GOES, (), 7, id="a face leaves"),
        pytest.param(SWAPS, (), 8, id="one face leaves, one enters"),
        pytest.param(DASHES, (), 13, id="a face passes fast"),
        pytest.param(BLINKS, (), 9, id="hidden for two frames"),
        pytest.param(PASSES, (), 17, id="two pass each other"),
        pytest.param([{}] * 33, (), 5, id="no face"),
    ],
)
def test_detect_frames__every_face_few_full_passes(
    scene: Scene, cuts: tuple[int, ...], whole: int
) -> None:
    sights, detector = seen(scene, cuts=cuts)
    assert [sight.frame.index for sight in sights] == list(range(len(scene)))
    for sight, there in zip(sights, scene, strict=True):
        assert sorted(sight.boxes[:, 0].tolist()) == pytest.approx(sorted(there.values()))
    assert len(detector.whole) <= whole
    assert len(set(detector.whole)) == len(detector.whole)
    assert {n for n, sight in enumerate(sights) if sight.full} == set(detector.whole)


def test_detect_frames__one_full_pass_per_second() -> None:
    detector = SceneDetector(STILL)
    assert len(list(detect_frames(frames(STILL), detector=detector, fps=240.0))) == len(STILL)
    assert sorted(detector.whole) == [0, 8, 16, 24, 32]


def test_detect_frames__cut() -> None:
    _, detector = seen(STILL, cuts=(12,))
    assert {11, 12} <= set(detector.whole)


def test_detect_frames__error_after_earlier_frames() -> None:
    def broken() -> Iterator[reader.Frame]:
        yield from frames(STILL[:5])
        raise MediaError("a video", got="truncated: early", hint="copy it")

    sights = detect_frames(broken(), detector=SceneDetector(STILL), fps=8.0)
    assert [next(sights).frame.index for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(MediaError, match="truncated"):
        next(sights)


@pytest.mark.parametrize("side", [NEAR_SIDE, WIDE_SIDE])
@pytest.mark.parametrize(
    "box",
    [
        pytest.param((300, 200, 340, 250), id="amid the picture"),
        pytest.param((50, 40, 90, 90), id="near a corner"),
        pytest.param((-20, -10, 30, 60), id="over the border"),
        pytest.param((600, 440, 700, 500), id="over the other border"),
        pytest.param((300, 200, 304, 205), id="tiny"),
        pytest.param((0, 0, 640, 480), id="all of it"),
    ],
)
def test_cutout__contains_box(box: tuple[int, int, int, int], side: int) -> None:
    y, x = np.mgrid[0:480, 0:640]
    image = np.stack([x // 4, y // 4, np.full_like(x, 7)], axis=2).astype(np.uint8)
    canvas, scale, corner = cutout(image, np.array(box, np.float32), canvas_side=side)
    assert canvas.shape == (side, side, 3)
    assert max(box[2] - box[0], box[3] - box[1]) * scale == pytest.approx(60)
    centre = np.array([box[0] + box[2], box[1] + box[3]]) / 2
    inside = np.clip(centre, 0, [639, 479])
    at = np.clip((inside - corner) * scale, 0, side - 1)
    shown = canvas[int(at[1]), int(at[0]), :2].astype(float) * 4
    assert shown == pytest.approx(inside, abs=8)
    for axis, length in enumerate((640, 480)):
        if side / scale <= length:
            assert -1e-3 <= corner[axis] <= length - side / scale + 1e-3


def test_detect_near__face_at_border() -> None:
    detector = detect.load(threshold=0.5)
    image = next(reader.sample(str(media_files.SIX_PEOPLE))).image
    whole, _ = detector.detect(image)
    for x1, y1, x2, y2, _ in whole:
        cut = np.ascontiguousarray(image[:, int(x1 + 0.3 * (x2 - x1)) :])
        boxes, _ = detector.detect(cut)
        at_border = boxes[(boxes[:, 0] < 2) & (np.abs(boxes[:, 1] - y1) < y2 - y1)]
        if len(at_border):
            ((found, _),) = detector.detect_near([cut], [at_border])
            assert (found[:, 4] > 0.5).all()
            assert overlap(found[0], at_border)[0] > 0.6


@pytest.mark.parametrize("shift", [(0, 0), (8, -6)])
def test_detect_near__agrees_with_detect(shift: tuple[int, int]) -> None:
    detector = detect.load(threshold=0.5)
    image = next(reader.sample(str(media_files.SIX_PEOPLE))).image
    boxes, keypoints = detector.detect(image)
    expected = boxes.copy()
    expected[:, :4] += np.tile(shift, 2)
    empty_place = np.array([[5, 5, 60, 70, 0]], np.float32)
    ((found, points),) = detector.detect_near([image], [np.vstack([expected, empty_place])])
    assert (found[:-1, 4] > 0.5).all()
    assert found[-1, 4] == 0
    eyes = np.linalg.norm(keypoints[:, 1] - keypoints[:, 0], axis=1)
    apart = np.linalg.norm(points[:-1] - keypoints, axis=2).mean(axis=1) / eyes
    assert apart.max() < 0.2
    for one, other in zip(found[:-1], boxes, strict=True):
        assert overlap(one, other[None])[0] > 0.7


@pytest.mark.parametrize("side", [NEAR_SIDE, WIDE_SIDE])
def test_detect_near__batch_equals_single(side: int) -> None:
    detector = detect.load(threshold=0.5)
    photo = next(reader.sample(str(media_files.SIX_PEOPLE))).image
    images = [photo, photo[:, ::-1].copy(), photo[::2, ::2].copy(), photo]
    places = [detector.detect(image)[0] for image in images[:3]] + [np.empty((0, 5), np.float32)]
    # More than go into one inference.
    images, places = images * 3, places * 3
    together = detector.detect_near(images, places, side=side)
    for image, place, (boxes, keypoints) in zip(images, places, together, strict=True):
        ((alone, points),) = detector.detect_near([image], [place], side=side)
        assert np.array_equal(boxes, alone)
        assert np.array_equal(keypoints, points)
    assert sum((boxes[:, 4] > 0.5).sum() for boxes, _ in together) >= 40


def test_detect__independent_of_threads() -> None:
    image = next(reader.sample(str(media_files.SIX_PEOPLE))).small(640)
    one, other = (detect.load(threads=threads).detect(image) for threads in (1, 2))
    assert np.array_equal(one[0], other[0])
    assert np.array_equal(one[1], other[1])
