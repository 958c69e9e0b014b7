"""Recipes of the raters: size, schedule, fold and teachers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from annotation.raters.network import Shape
from warehouse.training import loop


@dataclass(frozen=True)
class Recipe(loop.Recipe):
    """How a rater is trained.

    Attributes:
        widths, blocks, side, dropout, architecture: see ``network.Shape``.
        part: fold of the pictures, see ``dataset.in_fold``.
        mix: part of a batch that is mixed with itself, see ``augment.mix``.
        teachers: recipes of teachers that are trained first on the same fold, shipped raters,
            ``.onnx`` files, or folders of runs.
        distill: weight of the teachers' answers against the votes.
        start: shipped rater, ``.onnx`` file or folder of a run whose weights it begins with.
    """

    minutes: float = 10.0
    steps: int = 0
    batch: int = 128
    rate: float = 3e-3
    decay: float = 0.05
    average: float = 0.998
    seed: int = 0
    widths: tuple[int, ...] = (32, 64, 128, 256)
    blocks: tuple[int, ...] = (1, 2, 2, 1)
    side: int = 64
    dropout: float = 0.2
    architecture: str = "residual"
    part: str = "1/1"
    mix: float = 0.0
    teachers: tuple[str, ...] = ()
    distill: float = 0.6
    start: str = ""

    warm_up: ClassVar[float] = 0.06
    first_rate: ClassVar[float] = 0.05
    clip_norm: ClassVar[float] = 5.0

    def shape(self, *, units: int) -> Shape:
        """Return the network's shape for a number of action units."""
        names = ("side", "widths", "blocks", "dropout", "architecture")
        return Shape(units=units, **{name: getattr(self, name) for name in names})


_GPU = Recipe(
    minutes=4.5,
    batch=512,
    rate=2e-3,
    average=0.9995,
    widths=(48, 96, 192, 272),
    mix=0.5,
    teachers=("gpu-teacher", "gpu-teacher-plain"),
)
_TEACHER = replace(
    _GPU,
    minutes=2.4,
    average=0.999,
    widths=(96, 192, 320, 448),
    blocks=(2, 2, 3, 2),
    dropout=0.35,
    teachers=(),
)
_PLAIN: dict[str, Any] = {"architecture": "plain", "side": 48, "blocks": (2, 2, 2, 2)}

RECIPES = {
    "cpu": Recipe(minutes=32),
    "cpu-judge": Recipe(minutes=32, seed=1, part="2/2", **_PLAIN),
    "gpu": _GPU,
    "gpu-guide": replace(_GPU, part="1/2", teachers=("gpu-teacher",), minutes=5.5),
    "gpu-judge": replace(
        _GPU,
        seed=1,
        part="2/2",
        widths=(48, 96, 160, 256),
        teachers=("gpu-teacher-plain",),
        minutes=5.5,
        **_PLAIN,
    ),
    "gpu-teacher": _TEACHER,
    "gpu-teacher-plain": replace(
        _TEACHER, minutes=2.0, blocks=(2, 2, 2, 2), architecture="plain", dropout=0.3
    ),
}
"""By name for ``--recipe``. ``gpu``, ``gpu-guide`` and ``gpu-judge`` are the shipped raters: each
ends within ten minutes on one large GPU, teachers included. ``cpu`` and ``cpu-judge`` are smaller
and train on two cores, without teachers."""
