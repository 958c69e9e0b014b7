"""Simulated raters at the pages of a home, for the demo and for tests."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.settings import Settings
from pipeline.studio.project import session
from warehouse.storage import tables


def simulate(settings: Settings, *, count: int, say: Callable[[int, int], None]) -> int:
    """Let ``count`` simulated raters see every face of the project; return how many votes are new.

    They lean on the machine rater's reading of a face, each with an own bias and carelessness.
    """
    from annotation.raters import simulated

    with session(settings) as (client, found):
        voted = simulated.simulate(
            client,
            settings.place.studio,
            found.id,
            _sharpened(simulated.truth_of(tables.read(settings.place, "ratings"))),
            raters=simulated.panel(count),
            wanted_votes=settings.wanted_votes,
            progress=say,
        )
    return voted.new


def _sharpened(truth: dict[str, tuple[float, ...]]) -> dict[str, list[float]]:
    # A rater trained on votes tells the spread of a crowd and of its own doubt together; drawing
    # from that as it is gives a panel far less at one than people are (FER+: alpha 0.51).
    powers = {face: [share**2 for share in shares] for face, shares in truth.items()}
    return {face: [value / sum(shares) for value in shares] for face, shares in powers.items()}
