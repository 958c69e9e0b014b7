"""Where the faces are: CenterFace by default, any InsightFace detector by name.

Both sit behind InsightFace's protocol, ``detect(image, max_num=0)``, with one difference:
images are RGB here, BGR there.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from pipeline.faces.detect.base import LONGEST_SIDE, NEAR_SIDE, THRESHOLD, overlap
from pipeline.faces.detect.centerface import CenterFace, shipped_weights
from pipeline.faces.detect.insightface import InsightFace
from warehouse.errors import ModelError

__all__ = ["LONGEST_SIDE", "THRESHOLD", "CenterFace", "Detector", "InsightFace", "load", "overlap"]


class Detector(Protocol):
    """InsightFace's detector protocol on RGB pictures, and a cheap look where a face was."""

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

    def near(
        self,
        images: Sequence[np.ndarray],
        expected: Sequence[np.ndarray],
        *,
        side: int = NEAR_SIDE,
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """The face at each place where one is expected, seen on a small canvas around it.

        Args:
            images: of uint8[h, w, 3], RGB.
            expected: for each picture float[n, 4 or more], ``x1 y1 x2 y2 …``.
            side: of the canvas; on a larger one a face may also have moved to beside its place.

        Returns:
            for each picture boxes and keypoints as ``detect``, row by row of ``expected``; a
            score of 0 says that no face is there.
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
        return CenterFace(shipped_weights(), threshold=threshold, threads=threads)
    path = Path(name).expanduser()
    if not path.exists():
        raise ModelError(
            "'centerface', an .onnx file or a folder with an InsightFace pack",
            got=repr(name),
            hint="see `risorius models list` for what is there",
        )
    return InsightFace(path, threshold=threshold, threads=threads)
