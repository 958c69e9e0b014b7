"""The way of every item from video to release, as numbers and as the geometry of one diagram."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

SIDE = "synthetic faces"
"""A stage that nothing flows into: what it keeps joins the last one."""

HEIGHT, WIDTH, BAR = 230.0, 1000.0, 22.0
_TOP, _LABEL, _LABELS = 34.0, 15.5, 7
_ORDER = {"kept": 0, "dropped": 1, "failed": 2}


def flow(counts: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One entry per stage, in order: ``stage, total, segments`` and where its kept part lies.

    A segment has ``verdict, reason, n, share`` (percent of the stage). ``kept`` is the pair of
    percentages between which the kept segments lie: they open into the next stage.
    """
    stages: dict[str, list[dict[str, Any]]] = {}
    for row in counts:
        stages.setdefault(str(row["stage"]), []).append(dict(row))
    found = []
    for name, segments in stages.items():
        segments.sort(
            key=lambda row: (_ORDER.get(row["verdict"], 3), -row["n"], row["reason"] or "")
        )
        total = sum(row["n"] for row in segments)
        kept = sum(row["n"] for row in segments if row["verdict"] == "kept")
        for row in segments:
            row["share"] = 100 * row["n"] / total if total else 0.0
        found.append(
            {
                "stage": name,
                "total": total,
                "segments": segments,
                "kept": (0.0, round(100 * kept / total, 3) if total else 0.0),
            }
        )
    return found


def diagram(stages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Columns of equal height, one per stage, and ribbons from what is kept to the next column.

    Returns:
        ``width, height`` of the drawing; ``columns`` (``x, title, total, bars, labels``) and
        ``ribbons`` (SVG paths). Lengths are whole tenths, so that the page is the same anywhere.
    """
    main = [stage for stage in stages if stage["stage"] != SIDE]
    side = [stage for stage in stages if stage["stage"] == SIDE]
    step = (WIDTH - 150.0) / max(len(main) - 1, 1) if len(main) > 1 else 0.0
    columns, ribbons = [], []
    for number, stage in enumerate(main):
        x = number * step
        columns.append(_column(stage, x, top=_TOP, height=HEIGHT))
        if number:
            made = sum(one["kept"][1] * one["total"] / 100 for one in side)
            last = number == len(main) - 1
            joins = made / stage["total"] if last and stage["total"] else 0.0
            _, end = main[number - 1]["kept"]
            before = (number - 1) * step + BAR
            ribbons.append(
                _ribbon(before, x, (_TOP, _TOP + end * HEIGHT / 100),
                        (_TOP, _TOP + HEIGHT * max(0.0, 1 - min(joins, 1.0))))
            )  # fmt: skip
    bottom = _TOP + HEIGHT
    for stage in side:
        x = max(len(main) - 2, 0) * step
        top, height = bottom + 44.0, HEIGHT * 0.4
        columns.append(_column(stage, x, top=top, height=height))
        into = main[-1]["total"] if main else 0
        share = min(1.0, stage["kept"][1] * stage["total"] / 100 / into) if into else 0.0
        ribbons.append(
            _ribbon(x + BAR, (len(main) - 1) * step, (top, top + stage["kept"][1] * height / 100),
                    (_TOP + HEIGHT * (1 - share), _TOP + HEIGHT))
        )  # fmt: skip
        bottom = top + height
    lowest = [label["y"] for column in columns for label in column["labels"]]
    return {
        "width": WIDTH,
        "height": round(max([bottom, *lowest]) + 12, 1),
        "columns": columns,
        "ribbons": ribbons,
    }


def _column(stage: Mapping[str, Any], x: float, *, top: float, height: float) -> dict[str, Any]:
    bars, at = [], top
    for segment in stage["segments"]:
        long = segment["share"] * height / 100
        if segment["n"]:
            bars.append(dict(segment) | {"y": round(at, 1), "height": round(max(long, 1.0), 1)})
        at += long
    return {
        "x": round(x, 1), "top": top, "title": stage["stage"], "total": stage["total"],
        "bars": bars, "labels": _labels(bars, top),
    }  # fmt: skip


def _labels(bars: Sequence[Mapping[str, Any]], top: float) -> list[dict[str, Any]]:
    """One line beside each bar, pushed down where two would touch; the smallest are added up."""
    shown = list(bars[:_LABELS])
    rest = list(bars[_LABELS:])
    lines = [
        {"n": bar["n"], "text": bar["reason"] or bar["verdict"], "verdict": bar["verdict"],
         "y": bar["y"] + bar["height"] / 2 + 4}
        for bar in shown
    ]  # fmt: skip
    if rest:
        lines.append(
            {"n": sum(bar["n"] for bar in rest), "text": f"for {len(rest)} more reasons",
             "verdict": rest[0]["verdict"], "y": rest[0]["y"]}
        )  # fmt: skip
    lowest = top - _LABEL
    for line in lines:
        line["y"] = round(max(line["y"], lowest + _LABEL), 1)
        lowest = line["y"]
    return lines


def _ribbon(x0: float, x1: float, left: tuple[float, float], right: tuple[float, float]) -> str:
    middle = (x0 + x1) / 2
    (a, b), (c, d) = left, right
    return (
        f"M{x0:.1f},{a:.1f} C{middle:.1f},{a:.1f} {middle:.1f},{c:.1f} {x1:.1f},{c:.1f} "
        f"L{x1:.1f},{d:.1f} C{middle:.1f},{d:.1f} {middle:.1f},{b:.1f} {x0:.1f},{b:.1f} Z"
    )
