"""Everything that decides the weights, besides the data."""

from __future__ import annotations

import math
from dataclasses import dataclass

WARM_UP = 0.03
"""Share of the schedule in which the learning rate rises."""


@dataclass(frozen=True)
class Recipe:
    """How the network is trained; stored with its weights.

    Attributes:
        tier: size, of ``network.TIERS``.
        minutes, steps: the run ends at the first of the two; 0 means without that limit.
        rate: peak learning rate of AdamW.
        average: how slowly the averaged weights follow.
        balance: 0 draws faces as they come, 1 every expression equally often.
        no_condition, no_expression, no_au: chances that a face is shown without any of it.
        unit_unknown: chance that a unit is hidden, for half of the faces; for the other half the
            chance itself is drawn from 0..1, because people ask for two units, not for eighteen.
        guide_weight: of the AU-consistency loss; 0 trains without a guide.
        guide_share: of a batch that the guide looks at.
        guide_above: share of the face's variance that must be left for the guide to look.
    """

    tier: str = "XS3"
    minutes: float = 110.0
    steps: int = 0
    batch: int = 64
    rate: float = 6e-4
    decay: float = 0.01
    average: float = 0.9995
    seed: int = 0
    balance: float = 0.5
    no_condition: float = 0.10
    no_expression: float = 0.25
    no_au: float = 0.15
    unit_unknown: float = 0.15
    guide_weight: float = 0.1
    guide_share: float = 0.25
    guide_above: float = 0.5

    def progress(self, step: int, seconds: float) -> float:
        """0 at the start, 1 at the end."""
        by_clock = seconds / 60 / self.minutes if self.minutes else 0.0
        by_count = step / self.steps if self.steps else 0.0
        return min(1.0, max(by_clock, by_count))

    def rate_at(self, progress: float) -> float:
        """Linear up, half a cosine down."""
        if progress < WARM_UP:
            return self.rate * (0.02 + 0.98 * progress / WARM_UP)
        return self.rate * 0.5 * (1 + math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP)))


RECIPES = {
    "cpu": Recipe(),
    "gpu": Recipe(tier="M", minutes=10.0, batch=512, rate=8e-4, average=0.999),
}
"""``cpu`` for two cores and about two hours. ``gpu`` for one large GPU: not measured."""
