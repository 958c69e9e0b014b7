"""The detectors of InsightFace's model zoo."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.faces.detect import runtime
from pipeline.faces.detect.base import (
    LONGEST_SIDE,
    NEAR_SIDE,
    THRESHOLD,
    cutout,
    nearest,
    nothing_at,
    ranked,
)
from warehouse.errors import ModelError

_SMALL_SIDE = 128


class InsightFace:
    """A detector of InsightFace's model zoo: one ``.onnx`` file or a folder pack."""

    def __init__(self, path: Path, *, threshold: float = THRESHOLD, threads: int = 1) -> None:
        self.name = path.stem
        self._model = model(path, task="detection", threads=threads)
        # Both sizes: the large one sees small faces, the small one faces that fill the picture.
        sizes = [(_SMALL_SIDE, _SMALL_SIDE), (LONGEST_SIDE, LONGEST_SIDE)]
        self._model.prepare(ctx_id=0, det_thresh=threshold, input_size=sizes)
        runtime.log_provider(f"face detector {self.name}", self._model.session)

    def detect(self, image: np.ndarray, max_num: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """As ``Detector.detect``."""
        boxes, keypoints = self._look(image)
        return ranked(boxes, keypoints, image=image, max_num=max_num)

    def near(
        self,
        images: Sequence[np.ndarray],
        expected: Sequence[np.ndarray],
        *,
        side: int = NEAR_SIDE,
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """As ``Detector.near``; the zoo's models take one picture at a time."""
        found = nothing_at(expected)
        for image, places, (boxes, keypoints) in zip(images, expected, found, strict=True):
            for row, box in enumerate(places):
                canvas, scale, corner = cutout(image, box, canvas_side=side)
                seen = self._look(canvas, input_size=canvas.shape[:2])
                best = nearest(
                    *seen, scale=scale, corner=corner, image=image, expected=box,
                    moved=side > NEAR_SIDE,
                )  # fmt: skip
                if best is not None:
                    boxes[row], keypoints[row] = best
        return found

    def _look(
        self, image: np.ndarray, input_size: tuple[int, ...] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        bgr = np.ascontiguousarray(image[:, :, ::-1])
        boxes, keypoints = self._model.detect(bgr, input_size=input_size)
        if keypoints is None:
            raise ModelError(
                "a detector with five keypoints",
                got=f"{self.name}, which gives boxes only",
                hint="take a pack whose detector has keypoints, such as the *_bnkps ones",
            )
        return boxes, keypoints


def model(path: Path, *, task: str, threads: int) -> Any:
    """InsightFace's own object for ``detection`` or ``recognition``: of a file, or of a pack.

    Raises:
        ModelError: the weights are missing or damaged, or are for something else.
    """
    from insightface.app import FaceAnalysis
    from insightface.model_zoo import get_model

    given = {"providers": runtime.providers(), "sess_options": runtime.options(threads)}
    try:
        if path.is_dir():
            # A pack asks for its detector, also where only its recogniser is used.
            wanted = list(dict.fromkeys(("detection", task)))
            found = FaceAnalysis(name=str(path), allowed_modules=wanted, **given).models.get(task)
        else:
            found = get_model(str(path), **given)
    except Exception as error:  # the zoo asserts, onnxruntime has its own tree
        raise runtime.damaged(path, error) from error
    if getattr(found, "taskname", None) != task:
        noun, example = _TASKS[task]
        raise ModelError(
            f"a {noun} in {path.name}",
            got=f"a model for {getattr(found, 'taskname', 'nothing known')}",
            hint=f"name the {task} model of the pack, such as {example}",
        )
    return found


_TASKS = {
    "detection": ("face detector", "det_10g.onnx"),
    "recognition": ("face recogniser", "w600k_r50.onnx"),
}
