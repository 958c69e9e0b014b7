"""Segment action unit curves into movements with onset, apex and offset."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

METHOD = "au_hysteresis_1"
"""Version of this module; a new version processes every video again."""

_BLINK = 43
"""Eye closure, ignored: blinks occur every few seconds in any expression."""


@dataclass(frozen=True)
class EpisodeOptions:
    """Thresholds of a movement; intensities are above rest, in [0, 1].

    Attributes:
        rise: one unit must reach this level.
        fall: the movement lasts while one unit is above this level.
        smooth_s: standard deviation of the Gaussian smoothing, in seconds.
        rest_s: rest is the lower fifth of the curve in a window of this many seconds.
        min_s: shorter movements are dropped as noise.
        gap_s: a longer gap without a face ends a movement.
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
        first, last: first and last row of the curve, inclusive; ``apex`` is the highest.
        onset: row before it begins; None if it begins at the first row or after a gap.
        offset: row after it ends; None if it ends at the last row or before a gap.
        unit: column of the unit that is highest above rest at the apex.
        intensity: of that unit above rest, at the apex.
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
    """Smooth each unit and subtract the face's own rest.

    Args:
        times: float[n], seconds, increasing.
        curves: float[n, K] in [0, 1]; NaN if the rater does not support the unit.
        units: FACS number of each column; eye closure (AU43) is ignored.

    Returns:
        float64[n, K] above rest; 0 where unknown.
    """
    options = options or EpisodeOptions()
    values = np.asarray(curves, dtype=np.float64).copy()
    values[:, [unit == _BLINK for unit in units]] = np.nan
    known = ~np.isnan(values)
    filled = np.where(known, values, 0.0)
    smooth, rest, seen = np.zeros_like(filled), np.zeros_like(filled), known.copy()
    for row, now in enumerate(times):
        # Times increase, so a window is a range of rows; its cost does not grow with the track.
        low, high = np.searchsorted(times, [now - 4 * options.smooth_s, now + 4 * options.smooth_s])
        near = slice(low, max(high, row + 1))
        weight = np.exp(-0.5 * ((times[near] - now) / options.smooth_s) ** 2)[:, None] * known[near]
        total = weight.sum(axis=0)
        smooth[row] = (weight * filled[near]).sum(axis=0) / np.where(total > 0, total, 1)
        # The neighbours bridge a gap of one sample.
        seen[row] = total > 0
    updated_s = -np.inf
    for row, now in enumerate(times):
        if now - updated_s < options.rest_s / 20:
            rest[row] = rest[row - 1]
            continue
        updated_s = now
        low, high = np.searchsorted(times, [now - options.rest_s / 2, now + options.rest_s / 2])
        rest[row] = np.quantile(smooth[low : max(high, row + 1)], 0.2, axis=0)
    return np.where(seen, np.maximum(smooth - rest, 0.0), 0.0)


def episodes(
    times: np.ndarray, moved: np.ndarray, *, options: EpisodeOptions | None = None
) -> list[Episode]:
    """Find movements in order of time.

    Hysteresis on the unit that moves most: a movement lasts while the curve stays above ``fall``
    and counts if it reaches ``rise``. The onset is the last row at rest before it, the offset the
    first one after it. The curves come from a machine rater, so these times are proxies too.

    Args:
        times: float[n], seconds, increasing.
        moved: float[n, K] as ``movement`` returns it.
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
            begin_s = times[first if onset is None else onset]
            length_s = times[last if offset is None else offset] - begin_s
            if level[apex] < options.rise or length_s < options.min_s:
                continue
            unit, intensity = int(moved[apex].argmax()), float(level[apex])
            found.append(Episode(first, apex, last, onset, offset, unit, intensity))
    return found


def _unbroken(times: np.ndarray, gap_s: float) -> list[tuple[int, int]]:
    """Return half-open ranges of rows without a longer gap between neighbours."""
    cuts = [0, *(np.flatnonzero(np.diff(times) > gap_s) + 1).tolist(), len(times)]
    return list(pairwise(cuts))


def _runs(above: np.ndarray) -> list[tuple[int, int]]:
    """Return the first and last row of every unbroken run of True."""
    edges = np.diff(np.concatenate([[0], above.astype(np.int8), [0]]))
    starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1) - 1
    return list(zip(starts.tolist(), ends.tolist(), strict=True))
