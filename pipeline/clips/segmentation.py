"""Movements of a face, found in the curves of its action units: onset, apex, offset."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

METHOD = "au_hysteresis_1"
"""Names what this module does; a change of it makes every clip anew."""

_BLINK = 43
"""Closed eyes come and go every few seconds whatever a face shows."""


@dataclass(frozen=True)
class EpisodeOptions:
    """What counts as a movement; intensities are above the face's own rest, in [0, 1].

    Attributes:
        rise: one unit must come this far above rest.
        fall: the movement lasts while one unit is this far above it.
        smooth_s: standard deviation of the Gaussian that the curves are smoothed with.
        rest_s: rest is the lower fifth of the curve within this many seconds around a moment.
        min_s: a shorter movement is noise.
        gap_s: over a longer gap without a face no movement is followed.
    """

    rise: float = 0.25
    fall: float = 0.12
    smooth_s: float = 0.15
    rest_s: float = 20.0
    min_s: float = 0.1
    gap_s: float = 1.0


@dataclass(frozen=True)
class Episode:
    """One movement.

    Attributes:
        first, last: rows of the curve it lasts from and to, both included; ``apex`` the highest.
        onset: row of its beginning; None when it had begun before the first row, or before a gap
            ended. ``offset``: row of its end; None likewise.
        unit: column of the unit that is highest above rest at the apex; ``intensity`` is that.
    """

    first: int
    apex: int
    last: int
    onset: int | None
    offset: int | None
    unit: int
    intensity: float


def movement(
    times: np.ndarray,
    curves: np.ndarray,
    *,
    units: tuple[int, ...],
    options: EpisodeOptions | None = None,
) -> np.ndarray:
    """How far each unit is above the face's own rest, smoothed: float64[n, K], 0 where unknown.

    Args:
        times: float[n], seconds, growing.
        curves: float[n, K] in [0, 1]; NaN where the rater does not know the unit.
        units: FACS number of each column; eye closure (AU43) counts as no movement.
    """
    options = options or EpisodeOptions()
    values = np.asarray(curves, dtype=np.float64).copy()
    values[:, [unit == _BLINK for unit in units]] = np.nan
    known = ~np.isnan(values)
    filled = np.where(known, values, 0.0)
    smooth, rest, seen = np.zeros_like(filled), np.zeros_like(filled), known.copy()
    for row, now in enumerate(times):
        # Times grow, so a window is a range of rows: a long track costs no more per row.
        low, high = np.searchsorted(times, [now - 4 * options.smooth_s, now + 4 * options.smooth_s])
        near = slice(low, max(high, row + 1))
        weight = np.exp(-0.5 * ((times[near] - now) / options.smooth_s) ** 2)[:, None] * known[near]
        total = weight.sum(axis=0)
        smooth[row] = (weight * filled[near]).sum(axis=0) / np.where(total > 0, total, 1)
        # A hole of one sample is bridged by those around it.
        seen[row] = total > 0
    asked = -np.inf
    for row, now in enumerate(times):
        if now - asked < options.rest_s / 20:
            rest[row] = rest[row - 1]
            continue
        asked = now
        low, high = np.searchsorted(times, [now - options.rest_s / 2, now + options.rest_s / 2])
        rest[row] = np.quantile(smooth[low : max(high, row + 1)], 0.2, axis=0)
    return np.where(seen, np.maximum(smooth - rest, 0.0), 0.0)


def episodes(
    times: np.ndarray, moved: np.ndarray, *, options: EpisodeOptions | None = None
) -> list[Episode]:
    """Movements in order of time.

    Hysteresis on the unit that moves most: a movement lasts while it stays above ``fall``, and
    counts when it reaches ``rise``. Onset is the last row at rest before it, offset the first one
    after it. The curves are a machine rater's, which makes these times proxies too.

    Args:
        times: float[n], seconds, growing.
        moved: float[n, K] as ``movement`` gives it.
    """
    options = options or EpisodeOptions()
    if not len(times) or not moved.size:
        return []
    level = moved.max(axis=1)
    found = []
    for begin, end in _unbroken(times, options.gap_s):
        for first, last in _runs(level[begin:end] > options.fall):
            first, last = first + begin, last + begin
            apex = first + int(level[first : last + 1].argmax())
            onset = first - 1 if first > begin else None
            offset = last + 1 if last < end - 1 else None
            lasts = (
                times[last if offset is None else offset] - times[first if onset is None else onset]
            )
            if level[apex] < options.rise or lasts < options.min_s:
                continue
            found.append(
                Episode(
                    first=first,
                    apex=apex,
                    last=last,
                    onset=onset,
                    offset=offset,
                    unit=int(moved[apex].argmax()),
                    intensity=float(level[apex]),
                )
            )
    return found


def _unbroken(times: np.ndarray, gap_s: float) -> list[tuple[int, int]]:
    """Half-open ranges of rows without a longer gap between neighbours."""
    cuts = [0, *(np.flatnonzero(np.diff(times) > gap_s) + 1).tolist(), len(times)]
    return list(pairwise(cuts))


def _runs(yes: np.ndarray) -> list[tuple[int, int]]:
    """First and last row of every unbroken run of True."""
    edges = np.diff(np.concatenate([[0], yes.astype(np.int8), [0]]))
    return list(
        zip(np.flatnonzero(edges == 1).tolist(), (np.flatnonzero(edges == -1) - 1).tolist(),
            strict=True)
    )  # fmt: skip
