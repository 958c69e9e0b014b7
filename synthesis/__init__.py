"""Diffusion of faces, controlled by action units and an expression.

from synthesis import FaceAUPipeline
FaceAUPipeline.from_default()(au=[{12: 0.8}], expression=["happiness"], generator=0).images
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from synthesis.pipeline import FaceAUOutput, FaceAUPipeline

__all__ = ["FaceAUOutput", "FaceAUPipeline"]


def __getattr__(name: str) -> object:
    # torch and diffusers take seconds to import; the command line must start at once.
    if name in __all__:
        from synthesis import pipeline

        return getattr(pipeline, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
