"""Detectors of InsightFace's model zoo."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.faces.detect.base import (
    LONGEST_SIDE,
    NEAR_SIDE,
    THRESHOLD,
    cutout,
    empty_results,
    log_provider,
    nearest,
    providers,
    ranked,
    session_options,
    weights_error,
)
from warehouse.errors import ModelError

_SMALL_SIDE = 128

_TASKS = {
    "detection": ("face detector", "det_10g.onnx"),
    "recognition": ("face recogniser", "w600k_r50.onnx"),
}


class InsightFace:
    """A detector of InsightFace's model zoo: a file or a folder pack."""

    def __init__(self, path: Path, *, threshold: float = THRESHOLD, threads: int = 1) -> None:
        self.name = path.stem
        self._model = load_model(path, task="detection", threads=threads)
        # The large input size finds small faces, the small one faces that fill the image.
        sizes = [(_SMALL_SIDE, _SMALL_SIDE), (LONGEST_SIDE, LONGEST_SIDE)]
        self._model.prepare(ctx_id=0, det_thresh=threshold, input_size=sizes)
        log_provider(f"face detector {self.name}", self._model.session)

    def detect(self, image: np.ndarray, max_num: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Implement ``Detector.detect``."""
        boxes, keypoints = self._run(image)
        return ranked(boxes, keypoints, image=image, max_num=max_num)

    def detect_near(
        self,
        images: Sequence[np.ndarray],
        expected: Sequence[np.ndarray],
        *,
        side: int = NEAR_SIDE,
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Implement ``Detector.detect_near``; the models take one image at a time."""
        found = empty_results(expected)
        for image, places, (boxes, keypoints) in zip(images, expected, found, strict=True):
            for row, box in enumerate(places):
                canvas, scale, corner = cutout(image, box, canvas_side=side)
                detections = self._run(canvas, input_size=canvas.shape[:2])
                best = nearest(
                    *detections, scale=scale, corner=corner, image=image, expected=box,
                    moved=side > NEAR_SIDE,
                )  # fmt: skip
                if best is not None:
                    boxes[row], keypoints[row] = best
        return found

    def _run(
        self, image: np.ndarray, input_size: tuple[int, ...] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        bgr = np.ascontiguousarray(image[:, :, ::-1])
        boxes, keypoints = self._model.detect(bgr, input_size=input_size)
        if keypoints is None:
            raise ModelError(
                "The detector returns no keypoints",
                got=self.name,
                hint="use a pack whose detector has keypoints, such as the *_bnkps ones",
            )
        return boxes, keypoints


def load_model(path: Path, *, task: str, threads: int) -> Any:
    """Load a detection or recognition model from a file or a pack.

    Raises:
        ModelError: the weights are missing or damaged, or are for another task.
    """
    from insightface.app import FaceAnalysis
    from insightface.model_zoo import get_model

    runtime = {"providers": providers(), "sess_options": session_options(threads)}
    try:
        if path.is_dir():
            # FaceAnalysis requires a detector, also if only the recogniser is used.
            modules = list(dict.fromkeys(("detection", task)))
            found = FaceAnalysis(name=str(path), allowed_modules=modules, **runtime).models.get(
                task
            )
        else:
            found = get_model(str(path), **runtime)
    except Exception as error:  # the zoo asserts, onnxruntime has its own exception types
        raise weights_error(path, error) from error
    if getattr(found, "taskname", None) != task:
        noun, example = _TASKS[task]
        raise ModelError(
            f"{path.name} is not a {noun}",
            got=f"a model for {getattr(found, 'taskname', 'nothing known')}",
            hint=f"name the {task} model of the pack, such as {example}",
        )
    return found
