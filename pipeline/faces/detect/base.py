"""Detector protocol, box geometry and ONNX Runtime options."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from warehouse.errors import ModelError

if TYPE_CHECKING:
    import onnxruntime

logger = logging.getLogger(__name__)

LONGEST_SIDE = 640
"""Larger images are scaled down to this. A face of 32 px in a 1920 px frame is 11 px then."""

THRESHOLD = 0.4
"""Lower than the gate's, so that a doubtful face is counted as dropped instead of missed."""

NEAR_SIDE = 96
"""Side of the canvas around an expected face; the face is about 60 px of it.

Measured on 58 faces of the sample clips with places off by a tenth: at 96 px the median distance
of keypoints from those of a full-frame pass is .06 to .11 of the eye distance, at 128 px and
twice the time .05 to .10, at 64 px .08 to .11 with scores lower by a tenth.
"""

WIDE_SIDE = 2 * NEAR_SIDE
"""Side of the wider canvas at the same scale, for a face that moved by up to its own size."""

_FACE_SIDE = 60
_MIN_IOU = 0.3
_MAX_GROWTH = 1.6

_PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")

NO_BOXES = np.empty((0, 5), dtype=np.float32)
NO_KEYPOINTS = np.empty((0, 5, 2), dtype=np.float32)


class Detector(Protocol):
    """InsightFace's protocol on RGB images, plus detection near places."""

    name: str

    def detect(self, image: np.ndarray, max_num: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Detect the faces of one image, best first.

        Args:
            image: uint8[h, w, 3], RGB.
            max_num: return at most this many; 0 means all.

        Returns:
            boxes float32[n, 5], ``x1 y1 x2 y2 score`` in pixels of ``image``, and keypoints
            float32[n, 5, 2]: the eye on the left of the image, the eye on its right, nose,
            left and right corner of the mouth.
        """
        ...

    def detect_near(
        self,
        images: Sequence[np.ndarray],
        expected: Sequence[np.ndarray],
        *,
        side: int = NEAR_SIDE,
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Detect one face at each expected place, on a small canvas around it.

        Args:
            images: of uint8[h, w, 3], RGB.
            expected: for each image float[n, 4 or more], ``x1 y1 x2 y2 …``.
            side: of the canvas; on a larger one a face may also have moved beside its place.

        Returns:
            for each image boxes and keypoints as ``detect``, row by row of ``expected``; a
            score of 0 means that no face is there.
        """
        ...


def overlap(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the IoU of one box with each of several, float[n]."""
    low = np.maximum(box[:2], others[:, :2])
    high = np.minimum(box[2:4], others[:, 2:4])
    shared = np.prod(np.clip(high - low, 0, None), axis=1)
    area = np.prod(others[:, 2:4] - others[:, :2], axis=1) + np.prod(box[2:4] - box[:2])
    return shared / np.maximum(area - shared, 1e-9)


def ranked(
    boxes: np.ndarray, keypoints: np.ndarray, *, image: np.ndarray, max_num: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Clip boxes to the image, drop degenerate ones and sort by score."""
    height, width = image.shape[:2]
    boxes = boxes.astype(np.float32)
    boxes[:, 0:4:2] = boxes[:, 0:4:2].clip(0, width)
    boxes[:, 1:4:2] = boxes[:, 1:4:2].clip(0, height)
    valid = (boxes[:, 2] - boxes[:, 0] >= 1) & (boxes[:, 3] - boxes[:, 1] >= 1)
    # Five points in one place cannot be aligned.
    valid &= np.isfinite(keypoints).all(axis=(1, 2)) & (np.ptp(keypoints, axis=1) >= 1).all(axis=1)
    boxes, keypoints = boxes[valid], keypoints[valid].astype(np.float32)
    order = np.argsort(-boxes[:, 4], kind="stable")[: max_num or None]
    return boxes[order], keypoints[order]


def cutout(
    image: np.ndarray, box: np.ndarray, *, canvas_side: int = NEAR_SIDE
) -> tuple[np.ndarray, float, np.ndarray]:
    """Cut the surroundings of a box onto a square canvas.

    Returns:
        uint8[side, side, 3] with a box of about 60 px, extended at the image border by its edge;
        the scale; and the corner of the canvas in pixels of ``image``.
    """
    import cv2

    around = canvas_side / _FACE_SIDE
    side = max(4.0, around * float(max(box[2] - box[0], box[3] - box[1])))
    corner = np.array([float(box[0] + box[2]), float(box[1] + box[3])]) / 2 - side / 2
    # A face cut by the border is detected better at the canvas' edge than inside an extension.
    corner = np.minimum(corner, np.array(image.shape[1::-1]) - side).clip(0)
    scale = canvas_side / side
    # The bilinear warp alone would sample large faces with gaps; an integer factor is cheap.
    image, start, factor = _shrunk(image, corner, side, factor=int(1 / scale))
    x, y = (corner - start) / factor * (scale * factor)
    matrix = np.array([[scale * factor, 0, -x], [0, scale * factor, -y]])
    canvas = cv2.warpAffine(
        image, matrix, (canvas_side, canvas_side), flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip
    return canvas, scale, corner


def _shrunk(
    image: np.ndarray, corner: np.ndarray, side: float, *, factor: int
) -> tuple[np.ndarray, np.ndarray, int]:
    """Shrink the part around a square; return it, its origin, the factor."""
    import cv2

    height, width = image.shape[:2]
    left, top = (int(np.clip(value, 0, None)) for value in corner)
    columns = (min(width, int(corner[0] + side) + factor) - left) // max(1, factor)
    rows = (min(height, int(corner[1] + side) + factor) - top) // max(1, factor)
    if factor < 2 or columns < 1 or rows < 1:
        return image, np.zeros(2), 1
    part = image[top : top + rows * factor, left : left + columns * factor]
    small = cv2.resize(part, (columns, rows), interpolation=cv2.INTER_AREA)
    return small, np.array([left, top], dtype=float), factor


def empty_results(expected: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return zero boxes and keypoints for the places of several images."""
    return [
        (np.zeros((len(boxes), 5), np.float32), np.zeros((len(boxes), 5, 2), np.float32))
        for boxes in expected
    ]


def nearest(
    boxes: np.ndarray,
    keypoints: np.ndarray,
    *,
    scale: float,
    corner: np.ndarray,
    image: np.ndarray,
    expected: np.ndarray,
    moved: bool,
) -> tuple[np.ndarray, np.ndarray] | None:
    """Select the expected face among detections on a ``cutout``.

    Args:
        moved: if no detection overlaps the place, accept the nearest of about its size.

    Returns:
        box and keypoints in pixels of ``image``; None if it is not there.
    """
    boxes = boxes.copy()
    boxes[:, :4] = boxes[:, :4] / scale + np.tile(corner, 2)
    boxes, keypoints = ranked(boxes, keypoints / scale + corner, image=image)
    if not len(boxes):
        return None
    shares = overlap(expected, boxes)
    best = int(shares.argmax())
    if shares[best] < _MIN_IOU:
        grown = np.sqrt(_area(boxes) / _area(expected[None]))
        apart = np.linalg.norm(_center(boxes) - _center(expected[None]), axis=1)
        apart[(grown > _MAX_GROWTH) | (grown < 1 / _MAX_GROWTH)] = np.inf
        best = int(apart.argmin())
        if not (moved and np.isfinite(apart[best])):
            return None
    return boxes[best], keypoints[best]


def _area(boxes: np.ndarray) -> np.ndarray:
    return np.prod(boxes[:, 2:4] - boxes[:, :2], axis=1).clip(1e-6)


def _center(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, :2] + boxes[:, 2:4]) / 2


def session_options(threads: int) -> onnxruntime.SessionOptions:
    """Return session options for ``threads`` threads inside one inference."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Spinning idle threads would take cores from decoding and from other videos.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def providers() -> list[str]:
    """Return the execution providers available on this machine, fastest first."""
    import onnxruntime

    available = onnxruntime.get_available_providers()
    return [name for name in _PROVIDERS if name in available]


def log_provider(name: str, session: onnxruntime.InferenceSession) -> None:
    """Log what a session runs on.

    Raises:
        ModelError: on no supported provider.
    """
    active = session.get_providers()
    if not set(active) & set(_PROVIDERS):
        raise ModelError(
            f"{name} runs on neither of {', '.join(_PROVIDERS)}",
            got=", ".join(active) or "none",
            hint="install onnxruntime or onnxruntime-gpu again",
        )
    logger.info("%s runs on %s", name, active[0])


def weights_error(path: Path, error: Exception) -> ModelError:
    """Return the error for weights that do not load."""
    lines = str(error).strip().splitlines()
    return ModelError(
        f"The weights {path.name} cannot be loaded",
        got=lines[0] if lines else type(error).__name__,
        hint="fetch the weights again; the file is missing, incomplete or of another kind",
    )
