"""The detectors of InsightFace's model zoo."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.faces.detect import runtime
from pipeline.faces.detect.shape import (
    LONGEST_SIDE,
    THRESHOLD,
    cutout,
    pick,
    ranked,
)
from warehouse.errors import ModelError

_SMALL_SIDE = 128


class InsightFace:
    """A detector of InsightFace's model zoo: one ``.onnx`` file or a folder pack."""

    def __init__(self, path: Path, *, threshold: float = THRESHOLD, threads: int = 1) -> None:
        self.name = path.stem
        self._model = _zoo_model(path, threads=threads)
        # Both sizes: the large one sees small faces, the small one faces that fill the picture.
        sizes = [(_SMALL_SIDE, _SMALL_SIDE), (LONGEST_SIDE, LONGEST_SIDE)]
        self._model.prepare(ctx_id=0, det_thresh=threshold, input_size=sizes)
        runtime.log_provider(f"face detector {self.name}", self._model.session)

    def detect(self, image: np.ndarray, max_num: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """As ``Detector.detect``."""
        boxes, keypoints = self._look(image)
        return ranked(boxes, keypoints, image=image, max_num=max_num)

    def near(self, image: np.ndarray, expected: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As ``Detector.near``; the zoo's models take one picture at a time."""
        boxes = np.zeros((len(expected), 5), dtype=np.float32)
        keypoints = np.zeros((len(expected), 5, 2), dtype=np.float32)
        for row, box in enumerate(expected):
            canvas, scale, corner = cutout(image, box)
            found, points = self._look(canvas, input_size=canvas.shape[:2])
            found[:, :4] = found[:, :4] / scale + np.tile(corner, 2)
            found, points = ranked(found, points / scale + corner, image=image)
            best = pick(found, points, expected=box)
            if best is not None:
                boxes[row], keypoints[row] = best
        return boxes, keypoints

    def _look(
        self, image: np.ndarray, input_size: tuple[int, ...] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        bgr = np.ascontiguousarray(image[:, :, ::-1])
        boxes, keypoints = self._model.detect(bgr, input_size=input_size)
        if keypoints is None:
            raise ModelError(
                "a detector with five keypoints",
                got=f"{self.name}, which gives boxes only",
                mend="take a pack whose detector has keypoints, such as the *_bnkps ones",
            )
        return boxes, keypoints


def _zoo_model(path: Path, *, threads: int):  # type: ignore[no-untyped-def]
    from insightface.app import FaceAnalysis
    from insightface.model_zoo import get_model

    given = {"providers": runtime.providers(), "sess_options": runtime.options(threads)}
    try:
        if path.is_dir():
            model = FaceAnalysis(name=str(path), allowed_modules=["detection"], **given).det_model
        else:
            model = get_model(str(path), **given)
    except Exception as error:  # the zoo asserts, onnxruntime has its own tree
        raise runtime.damaged(path, error) from error
    if getattr(model, "taskname", None) != "detection":
        raise ModelError(
            f"a face detector in {path.name}",
            got=f"a model for {getattr(model, 'taskname', 'nothing known')}",
            mend="name the detection model of the pack, such as det_10g.onnx",
        )
    return model
