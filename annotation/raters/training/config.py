"""Everything that decides the weights, besides the data."""

from __future__ import annotations

import math
from dataclasses import dataclass

from annotation.raters.network import Shape

WARM_UP = 0.08
"""Share of the schedule in which the learning rate rises."""


@dataclass(frozen=True)
class Recipe:
    """How a network is trained; stored with its weights.

    Attributes:
        minutes, steps: the run ends at the first of the two; 0 means without that limit.
        rate: peak learning rate of AdamW.
        architecture: ``residual`` or ``plain``, see ``network`` and ``plain``.
        part: ``1/2`` learns from the first half of the pictures only, ``1/1`` from all of them;
            see ``parts``.
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

    def shape(self, *, units: int) -> Shape:
        """The network this recipe trains, for so many action units."""
        return Shape(
            units=units,
            side=self.side,
            widths=self.widths,
            blocks=self.blocks,
            dropout=self.dropout,
            architecture=self.architecture,
        )

    def progress(self, step: int, seconds: float) -> float:
        """0 at the start, 1 at the end."""
        by_clock = seconds / 60 / self.minutes if self.minutes else 0.0
        by_count = step / self.steps if self.steps else 0.0
        return min(1.0, max(by_clock, by_count))

    def rate_at(self, progress: float) -> float:
        """Linear up, half a cosine down."""
        if progress < WARM_UP:
            return self.rate * (0.05 + 0.95 * progress / WARM_UP)
        return self.rate * 0.5 * (1 + math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP)))


RECIPES = {
    "cpu": Recipe(minutes=32),
    "gpu": Recipe(minutes=9, batch=512, rate=4e-3, average=0.999, widths=(48, 96, 192, 272)),
    "judge": Recipe(
        minutes=32, seed=1, architecture="plain", side=48, blocks=(2, 2, 2, 2), part="2/2"
    ),
}
"""By name for ``--recipe``. ``cpu`` (with ``--part 1/2``) and ``judge`` made the shipped weights on
two cores. ``gpu`` stays below 12 MB and should end within ten minutes on one large GPU with
``--loaders 12``; it has **not been measured**, no GPU was at hand."""
