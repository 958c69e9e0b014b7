"""Clips as film strips: what happened, on three frames and as a curve of action units."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import polars as pl

from warehouse.releases.clips import nearest
from warehouse.vocabulary import ACTION_UNITS

WIDTH, HEIGHT = 320.0, 72.0
_SHOWN = 6
_BESIDE = 2
_MARKS = ("onset", "apex", "offset")
_UNITS = {unit.number: (place, unit) for place, unit in enumerate(ACTION_UNITS)}


def strips(clips: pl.DataFrame, picture: Callable[[str], str]) -> list[dict[str, Any]]:
    """A few clips, the strongest of each person first.

    Args:
        clips: as ``clips.divided`` gives them, with ``split``.
        picture: media key to address of a picture that a page can show.

    Returns:
        per clip ``clip_id, split, unit, intensity, seconds, frames, curves, marks``; a frame has
        ``mark, second, picture``. Where onset or offset is on no frame, the clip's first or last
        frame stands there and says so; a frame that would stand there twice is None. Lengths
        of curves and marks are in a drawing of ``WIDTH`` by ``HEIGHT``, in whole tenths.
    """
    moving = clips.filter(pl.col("times").list.len() > 0)
    if moving.is_empty():
        return []
    order = ["turn", "apex_intensity", "clip_id"]
    person = pl.col("subject_id").fill_null(pl.col("video_id"))
    shown = (
        moving.sort("apex_intensity", "clip_id", descending=[True, False], nulls_last=True)
        .with_columns(turn=pl.int_range(pl.len()).over(person))
        .sort(order, descending=[False, True, False], nulls_last=True)
        .head(_SHOWN)
    )
    return [_strip(row, picture) for row in shown.iter_rows(named=True)]


def _strip(row: Mapping[str, Any], picture: Callable[[str], str]) -> dict[str, Any]:
    times, first = row["times"], row["start_s"]
    length = max(row["end_s"] - first, 1e-6)
    seen = {mark: nearest(times, row[f"{mark}_s"]) for mark in _MARKS}
    frames = [_ends(mark, at, seen["apex"], last=len(times) - 1) for mark, at in seen.items()]
    units = _liveliest(row)
    return {
        "clip_id": row["clip_id"],
        "split": row["split"],
        "unit": _UNITS[units[0]][1] if units else None,
        "intensity": row["apex_intensity"],
        "seconds": row["end_s"] - first,
        "frames": [
            {
                "mark": mark,
                "second": None if at is None else times[at] - first,
                "picture": None if at is None else picture(row["crops"][at]),
            }
            for mark, at in frames
        ],
        "curves": [
            {"code": _UNITS[number][1].code, "path": _path(row, number, length=length)}
            for number in reversed(units)
        ],
        "marks": [
            {"mark": mark, "x": round(WIDTH * (times[at] - first) / length, 1)}
            for mark, at in seen.items()
            if at is not None
        ],
    }


def _ends(mark: str, at: int | None, apex: int | None, *, last: int) -> tuple[str, int | None]:
    """What stands where a mark should: its own frame, or the clip's end on that side."""
    if at is not None or mark == "apex":
        return mark, at
    end = 0 if mark == "onset" else last
    return (mark, None) if end == apex else ("first frame" if end == 0 else "last frame", end)


def _liveliest(row: Mapping[str, Any]) -> list[int]:
    """Numbers of the units that move most, the one of the apex first."""
    rated = [values for values in row["au"] or [] if values is not None]
    if not rated:
        return []

    def reach(number: int) -> float:
        values = [rating[_UNITS[number][0]] for rating in rated]
        return float(max(values) - min(values))

    lively = sorted(_UNITS, key=lambda number: (-reach(number), number))
    apex = row["apex_au"] if row["apex_au"] in _UNITS else lively[0]
    return [apex, *(number for number in lively if number != apex)][: _BESIDE + 1]


def _path(row: Mapping[str, Any], number: int, *, length: float) -> str:
    """An SVG path through the unit's intensities; it breaks where a frame was not rated."""
    steps: list[str] = []
    pen: Sequence[str] = ("M", "L")
    down = False
    for second, values in zip(row["times"], row["au"], strict=True):
        if values is None:
            down = False
            continue
        x = WIDTH * (second - row["start_s"]) / length
        y = HEIGHT * (1 - min(1.0, max(0.0, float(values[_UNITS[number][0]]))))
        steps.append(f"{pen[down]}{x:.1f} {y:.1f}")
        down = True
    return " ".join(steps)
