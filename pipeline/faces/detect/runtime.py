"""ONNX Runtime as the detectors use it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from warehouse.errors import ModelError

if TYPE_CHECKING:
    import onnxruntime

logger = logging.getLogger(__name__)

_PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")


def options(threads: int) -> onnxruntime.SessionOptions:
    """Session options for ``threads`` threads inside one inference."""
    import onnxruntime

    chosen = onnxruntime.SessionOptions()
    chosen.intra_op_num_threads = threads
    chosen.inter_op_num_threads = 1
    chosen.log_severity_level = 3
    # Idle threads that spin take the cores from decoding, and from the videos beside.
    chosen.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return chosen


def providers() -> list[str]:
    """What this machine can run on, fastest first."""
    import onnxruntime

    available = onnxruntime.get_available_providers()
    return [name for name in _PROVIDERS if name in available]


def log_provider(name: str, session: onnxruntime.InferenceSession) -> None:
    """Say what a session runs on.

    Raises:
        ModelError: on nothing we know.
    """
    active = session.get_providers()
    if not set(active) & set(_PROVIDERS):
        raise ModelError(
            f"one of the providers {', '.join(_PROVIDERS)}",
            got=", ".join(active) or "none",
            hint="install onnxruntime or onnxruntime-gpu again",
        )
    logger.info("%s runs on %s", name, active[0])


def damaged(path: Path, error: Exception) -> ModelError:
    """The error for weights that do not load."""
    said = str(error).strip().splitlines()
    return ModelError(
        f"readable weights in {path.name}",
        got=said[0] if said else type(error).__name__,
        hint="fetch the weights again; the file is missing, cut short or of another kind",
    )
