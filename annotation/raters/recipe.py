"""Everything that decides the weights, besides the data."""

from __future__ import annotations

import math
from dataclasses import dataclass

WARM_UP = 0.08
"""Share of the schedule in which the learning rate rises."""


@dataclass(frozen=True)
class Recipe:
    """How a network is trained; stored with its weights.

    Attributes:
        minutes, steps: the run ends at the first of the two; 0 means without that limit.
        rate: peak learning rate of AdamW.
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
