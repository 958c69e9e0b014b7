"""Plot the action unit curves of clips as an SVG image in Markdown."""

from __future__ import annotations

import base64

import numpy as np
import polars as pl

from pipeline.clips.segmentation import movement
from warehouse.storage import tables
from warehouse.storage.home import Home
from warehouse.vocabulary import ACTION_UNITS

_UNITS = tuple(unit.number for unit in ACTION_UNITS)
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
_WIDTH, _HEIGHT, _LEFT, _TOP = 720, 120, 40, 22


def curves(home: Home, clips: pl.DataFrame, *, limit: int = 3) -> str:
    """Plot the strongest units above rest of the tracks that move most.

    Clips are shaded from onset to offset, with a line at each apex.

    Args:
        clips: rows of the table ``clips``.

    Returns:
        ``![curves](data:image/svg+xml;base64,…)``, or ``_no movement_``.
    """
    kept = clips.filter(pl.col("verdict") == "kept")
    tracks = (
        kept.group_by("track_id").agg(pl.col("apex_intensity").max())
        .sort("apex_intensity", "track_id", descending=[True, False])["track_id"].head(limit)
    )  # fmt: skip
    if tracks.is_empty():
        return "_no movement_"
    rated = (
        tables.scan(home, "faces")
        .filter((pl.col("verdict") == "kept") & pl.col("track_id").is_in(tracks.implode()))
        .select("face_id", "track_id", "time_s")
        .join(tables.scan(home, "ratings").select("face_id", "rater_id", "au"), on="face_id")
        .sort("time_s", "rater_id")
        .unique(["track_id", "time_s"], keep="last", maintain_order=True)
        .collect()
    )
    parts = [
        _track(rated.filter(pl.col("track_id") == track), kept.filter(pl.col("track_id") == track))
        for track in tracks
    ]
    step = _HEIGHT + _TOP + 24
    body = "".join(
        f'<g transform="translate(0 {number * step})">{part}</g>'
        for number, part in enumerate(parts)
    )
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH + 60}" '
        f'height="{step * len(parts)}" font-family="sans-serif" font-size="11">'
        f'<rect width="100%" height="100%" fill="#fff"/>'
        f"{body}</svg>"
    )
    return f"![curves](data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()})"


def _track(rated: pl.DataFrame, clips: pl.DataFrame) -> str:
    times = rated["time_s"].to_numpy()
    moved = movement(times, rated["au"].to_numpy().reshape(-1, len(_UNITS)), units=_UNITS)
    first, last = float(times[0]), max(float(times[-1]), float(times[0]) + 1e-3)

    def x(time_s: float) -> float:
        return _LEFT + (time_s - first) / (last - first) * (_WIDTH - _LEFT)

    def y(value: float) -> float:
        return _TOP + _HEIGHT * (1 - min(value, 1.0))

    parts = [f'<text x="{_LEFT}" y="14" font-weight="bold">{clips["track_id"][0]}</text>']
    for clip in clips.iter_rows(named=True):
        begin = clip["onset_s"] if clip["onset_s"] is not None else clip["start_s"]
        end = clip["offset_s"] if clip["offset_s"] is not None else clip["end_s"]
        top, apex = y(1.0), x(clip["apex_s"])
        parts.append(
            f'<rect x="{x(begin):.1f}" y="{top:.1f}" width="{x(end) - x(begin):.1f}" '
            f'height="{_HEIGHT}" fill="#eee" stroke="#fff"/><line x1="{apex:.1f}" x2="{apex:.1f}" '
            f'y1="{top:.1f}" y2="{y(0):.1f}" stroke="#888" stroke-dasharray="3 3"/>'
        )
    for value in (0.0, 0.5, 1.0):
        parts.append(
            f'<text x="4" y="{y(value) + 4:.1f}">{value:.1f}</text><line x1="{_LEFT}" '
            f'x2="{_WIDTH}" y1="{y(value):.1f}" y2="{y(value):.1f}" stroke="#ddd"/>'
        )
    strongest = np.argsort(-moved.max(axis=0), kind="stable")[: len(_COLOURS)]
    for colour, unit in zip(_COLOURS, strongest, strict=True):
        points = " ".join(
            f"{x(t):.1f},{y(v):.1f}" for t, v in zip(times, moved[:, unit], strict=True)
        )
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
        )
    legend = " ".join(
        f'<tspan fill="{colour}">AU{_UNITS[unit]}</tspan>'
        for colour, unit in zip(_COLOURS, strongest, strict=True)
    )
    parts.append(f'<text x="{_WIDTH - 150}" y="14">{legend}</text>')
    for time_s in (first, last):
        parts.append(
            f'<text x="{x(time_s) - 10:.1f}" y="{_TOP + _HEIGHT + 14}">{time_s:.1f} s</text>'
        )
    return "".join(parts)
