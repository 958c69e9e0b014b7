"""Faces that an imported data set labels: boxes, whole frames, no gate.

A labelled face must not vanish. Where the data set gives its box, that box is the face, whether the
detector finds it or not. A picture without a face that the detector finds shows a face that was cut
out before: the whole frame is the face. The quality gate only flags labelled faces.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.faces.detect import overlap
from warehouse.geometry import CROP_SIZE
from warehouse.ids import sha256_of

KEY = "labelled"
"""Key of these facts in a line of ``sources.jsonl``."""

WHOLE_FRAME, ANNOTATED_BOX = "whole_frame", "annotated_box"
"""Reason codes of kept faces that the detector did not find."""

MIN_IOU = 0.3
"""Annotated boxes of heads and the detector's boxes of faces overlap by a third at least."""

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Labelled:
    """What a data set says of the faces of a file.

    Attributes:
        boxes: ``x y w h`` of the labelled faces in pixels.
        whole: a frame without a face is one.
        drop: the gate drops labelled faces too, and no face is added.
    """

    boxes: tuple[Box, ...] = ()
    whole: bool = True
    drop: bool = False

    def facts(self) -> dict[str, Any]:
        """Return what a line of the listing holds."""
        return {"boxes": [list(box) for box in self.boxes], "whole": self.whole, "drop": self.drop}

    def digest(self, fingerprint: str) -> str:
        """Return the fingerprint of a search with these facts."""
        return sha256_of([fingerprint.encode(), repr(self).encode()])[:16]


@dataclass(frozen=True)
class FrameFaces:
    """Faces of a frame, labelled ones among them.

    Attributes:
        boxes: float32[n, 5], ``x1 y1 x2 y2 score``; the score of an added face is 0.
        keypoints: float32[n, 5, 2], NaN for an added face.
        flags: reason code of an added face.
        spared: whether the gate only flags the face.
    """

    boxes: np.ndarray
    keypoints: np.ndarray
    flags: list[str | None]
    spared: list[bool]


def read(listing: Path) -> dict[str, Labelled]:
    """Return address to facts of the files of an imported batch."""
    found: dict[str, Labelled] = {}
    if not listing.is_file():
        return found
    with open(listing, encoding="utf-8") as handle:
        for text in handle:
            if f'"{KEY}"' not in text:
                continue
            line = json.loads(text)
            given = line[KEY]
            boxes = tuple(tuple(map(float, box)) for box in given["boxes"])
            found[line["uri"]] = Labelled(boxes, given["whole"], given["drop"])  # type: ignore[arg-type]
    return found


def apply(
    facts: Labelled | None, boxes: np.ndarray, keypoints: np.ndarray, size: tuple[int, int]
) -> FrameFaces:
    """Add the labelled faces of a frame that were not found; mark the others.

    Without annotated boxes the largest face is the labelled one.

    Args:
        boxes: float32[n, 5] of the detector.
        size: width and height of the frame.
    """
    plain = FrameFaces(boxes, keypoints, [None] * len(boxes), [False] * len(boxes))
    if facts is None or facts.drop:
        return plain
    added: list[tuple[float, ...]] = []
    flag = ANNOTATED_BOX
    spared = list(plain.spared)
    for box in facts.boxes:
        place = best(box, boxes)
        if place is not None:
            spared[place] = True
        elif (inside := _clipped(box, size)) is not None:
            added.append(inside)
    if not facts.boxes:
        if len(boxes):
            spared[int(np.argmax([_area(_xywh(one)) for one in boxes]))] = True
        elif facts.whole:
            added, flag = [(0.0, 0.0, float(size[0]), float(size[1]))], WHOLE_FRAME
    if not added:
        return FrameFaces(boxes, keypoints, plain.flags, spared)
    new = np.array([(*one, 0.0) for one in added], dtype=np.float32)
    return FrameFaces(
        np.concatenate([boxes.reshape(-1, 5), new]).astype(np.float32),
        np.concatenate(
            [keypoints.reshape(-1, 5, 2), np.full((len(new), 5, 2), np.nan, np.float32)]
        ).astype(np.float32),
        [*plain.flags, *[flag] * len(new)],
        [*spared, *[True] * len(new)],
    )


def best(box: Box, boxes: np.ndarray) -> int | None:
    """Return the index of the box that overlaps most, if it does enough.

    Args:
        box: ``x y w h``.
        boxes: float[n, >=4], corners.
    """
    x, y, w, h = box
    found = overlap(np.array([x, y, x + w, y + h]), boxes) if len(boxes) else np.zeros(0)
    index = int(found.argmax()) if len(found) else 0
    return index if len(found) and found[index] >= MIN_IOU else None


def crop(image: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Cut the square around a box; black outside the image.

    Args:
        image: uint8[h, w, 3].
        box: ``x1 y1 x2 y2 …`` in pixels.

    Returns:
        uint8[224, 224, 3].
    """
    import cv2

    x1, y1, x2, y2 = (float(value) for value in box[:4])
    side = max(x2 - x1, y2 - y1, 1.0)
    left, top = round((x1 + x2 - side) / 2), round((y1 + y2 - side) / 2)
    right, bottom = left + max(1, round(side)), top + max(1, round(side))
    height, width = image.shape[:2]
    part = image[max(0, top) : min(height, bottom), max(0, left) : min(width, right)]
    square = cv2.copyMakeBorder(
        part,
        max(0, -top), max(0, bottom - height), max(0, -left), max(0, right - width),
        cv2.BORDER_CONSTANT,
    )  # fmt: skip
    method = cv2.INTER_AREA if square.shape[0] > CROP_SIZE else cv2.INTER_LINEAR
    found: np.ndarray = cv2.resize(square, (CROP_SIZE, CROP_SIZE), interpolation=method)
    return found


def _xywh(box: np.ndarray) -> Box:
    x1, y1, x2, y2 = (float(value) for value in box[:4])
    return x1, y1, x2 - x1, y2 - y1


def _area(box: Box) -> float:
    return max(0.0, box[2]) * max(0.0, box[3])


def _clipped(box: Box, size: tuple[int, int]) -> tuple[float, ...] | None:
    """Return the corners of a box inside a frame; None if it lies outside."""
    left, top = max(0.0, box[0]), max(0.0, box[1])
    right, bottom = min(float(size[0]), box[0] + box[2]), min(float(size[1]), box[1] + box[3])
    return (left, top, right, bottom) if right - left >= 1 and bottom - top >= 1 else None
