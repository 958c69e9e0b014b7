"""Face detectors: CenterFace by default, any InsightFace detector by path.

Both follow InsightFace's protocol ``detect(image, max_num=0)``, but images are RGB, not BGR.
"""

from __future__ import annotations

from pathlib import Path

from pipeline.faces.detect.base import LONGEST_SIDE, THRESHOLD, Detector, overlap
from pipeline.faces.detect.centerface import CenterFace, shipped_weights
from pipeline.faces.detect.insightface import InsightFace
from warehouse.errors import ModelError

__all__ = [
    "LONGEST_SIDE",
    "THRESHOLD",
    "CenterFace",
    "Detector",
    "InsightFace",
    "load",
    "overlap",
    "shipped_weights",
]


def load(name: str = "centerface", *, threshold: float = THRESHOLD, threads: int = 1) -> Detector:
    """Load a detector by name or path.

    Args:
        name: ``centerface``, a path to an ``.onnx`` file InsightFace knows, or a folder that
            holds an InsightFace pack.
        threshold: detections below this score are not returned.
        threads: threads inside one inference. One, because videos already run in parallel.

    Raises:
        ModelError: the weights are missing, damaged, or detect no keypoints.
    """
    if name == "centerface":
        return CenterFace(shipped_weights(), threshold=threshold, threads=threads)
    path = Path(name).expanduser()
    if not path.exists():
        raise ModelError(
            "The detector is neither 'centerface', an .onnx file nor a folder with an "
            "InsightFace pack",
            got=repr(name),
            hint="run `risorius models list` to see what is installed",
        )
    return InsightFace(path, threshold=threshold, threads=threads)
