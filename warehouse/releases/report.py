"""Render ``report.html``: statistics, galleries, clips and the item flow."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import polars as pl

from warehouse.releases.clips import nearest
from warehouse.releases.dataset_card import environment, title
from warehouse.releases.diff import CHANGES
from warehouse.releases.schema import SPLITS
from warehouse.storage import media
from warehouse.storage.home import Home
from warehouse.vocabulary import ACTION_UNITS, EXPRESSIONS

FILE = "report.html"

CURVE_WIDTH, CURVE_HEIGHT = 320.0, 72.0
_EVENTS = ("onset", "apex", "offset")
_MAX_CLIPS = 6
_CURVES = 3
_AU_OF = {unit.number: (index, unit) for index, unit in enumerate(ACTION_UNITS)}

SIDE_STAGE = "synthetic faces"
"""A stage without input from other stages; the faces it keeps enter the last stage."""
_WIDTH, _HEIGHT, _BAR = 1000.0, 230.0, 22.0
_TOP, _LINE, _MAX_LABELS = 34.0, 15.5, 7
_VERDICT_ORDER = {"kept": 0, "dropped": 1, "failed": 2}

_GALLERY = 24
_FLAGGED = 12
_PER_EXPRESSION = 4
_THUMBNAIL = 112
_BINS = 12

Answers = Mapping[str, list[tuple[str, int]]]
"""Face to its answers with counts, most frequent first."""


def render(
    contents: Mapping[str, Any],
    *,
    rows: pl.DataFrame,
    votes: pl.DataFrame,
    home: Home,
    sequences: pl.DataFrame | None = None,
) -> str:
    """Return a self-contained page: no network, no script, light and dark.

    Args:
        contents: the manifest so far, with ``summary`` and ``facts``.
        rows: released faces with ``split``; a few dozen crops are embedded as thumbnails.
        votes: all votes; shown as counts beside the faces.
        sequences: released clips with ``split``; a few are shown as film strips.
    """
    templates = environment(html=True)
    labelled = rows.filter(
        pl.col("soft_label").is_not_null(), pl.col("source") != "synthetic"
    ).with_columns(entropy_bits=_entropy_bits())
    cards = partial(_cards, home=home, answers=_count_answers(votes))
    stages = flow(contents["counts"])
    return templates.get_template("report.html.j2").render(
        **contents,
        title=title(contents),
        split_names=SPLITS,
        expressions=EXPRESSIONS,
        flow=stages,
        diagram=diagram(stages),
        entropy=_histogram(labelled["entropy_bits"]),
        gallery=cards(_evenly_spaced(labelled.sort("entropy_bits", "face_id"))),
        label_issues=cards(_worst(rows, "is_label_issue", "label_quality")),
        open_set=cards(_worst(rows, "is_open_set", "open_set_score")),
        duplicates=_pairs(rows, cards),
        real_and_synthetic=_real_and_synthetic(rows, cards),
        strips=[] if sequences is None else film_strips(sequences, partial(_thumbnail, home)),
        curve_size=(CURVE_WIDTH, CURVE_HEIGHT),
        change_names=CHANGES,
    )


# --- Faces ---


def _entropy_bits() -> pl.Expr:
    """Return the entropy of the soft label, 0 to 3 bits."""
    shares = pl.col("soft_label").arr.to_list().cast(pl.List(pl.Float64))
    positive = pl.element().filter(pl.element() > 0)
    return -shares.list.eval(positive * positive.log(base=2)).list.sum()


def _histogram(values: pl.Series) -> list[dict[str, float]]:
    width = 3.0 / _BINS
    counts = [0] * _BINS
    for value in values:
        counts[min(int(value / width + 1e-9), _BINS - 1)] += 1
    most = max([*counts, 1])
    return [
        {"from": index * width, "to": (index + 1) * width, "n": n, "height": 100 * n / most}
        for index, n in enumerate(counts)
    ]


def _evenly_spaced(rows: pl.DataFrame) -> pl.DataFrame:
    """Take at most ``_GALLERY`` rows at even ranks, both ends included."""
    if len(rows) <= _GALLERY:
        return rows
    return rows[[round(step * (len(rows) - 1) / (_GALLERY - 1)) for step in range(_GALLERY)]]


def _worst(rows: pl.DataFrame, flag: str, score: str) -> pl.DataFrame:
    return rows.filter(pl.col(flag)).sort(score, "face_id").head(_FLAGGED)


def _count_answers(votes: pl.DataFrame) -> Answers:
    counted = (
        votes.filter(pl.col("expressions").list.len() > 0, ~pl.col("was_cancelled"))
        .select("face_id", answer=pl.col("expressions").list.join(" + "))
        .group_by("face_id", "answer")
        .len()
        .sort("face_id", "len", "answer", descending=[False, True, False])
    )
    found: dict[str, list[tuple[str, int]]] = {}
    for face, answer, n in counted.iter_rows():
        found.setdefault(face, []).append((answer, n))
    return found


def _cards(rows: pl.DataFrame, *, home: Home, answers: Answers) -> list[dict[str, Any]]:
    """Return what the template shows of each face."""
    return [
        {
            "face_id": row["face_id"],
            "image": _thumbnail(home, row["crop"]),
            "shares": [
                {"name": name, "percent": round(100 * float(share), 2)}
                for name, share in zip(EXPRESSIONS, row["soft_label"] or (), strict=False)
                if share
            ],
            "name": None if row["expression"] is None else EXPRESSIONS[row["expression"]],
            "answers": answers.get(row["face_id"], []),
            "label_quality": row["label_quality"],
            "open_set_score": row["open_set_score"],
            "split": row["split"],
        }
        for row in rows.iter_rows(named=True)
    ]


def _pairs(
    rows: pl.DataFrame, cards: Callable[[pl.DataFrame], list[dict[str, Any]]]
) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return near duplicates beside their original, if that is released too."""
    copies = rows.filter(pl.col("duplicate_of").is_in(rows["face_id"].implode()))
    # One pair per original, so that one still scene does not fill the page.
    shown = (
        copies.sort("duplicate_of", "face_id")
        .unique("duplicate_of", keep="first")
        .sort("face_id")
        .head(_FLAGGED // 2)
    )
    originals = rows.filter(pl.col("face_id").is_in(shown["duplicate_of"].implode()))
    by_id = {card["face_id"]: card for card in cards(originals)}
    return list(zip((by_id[face] for face in shown["duplicate_of"]), cards(shown), strict=True))


def _real_and_synthetic(
    rows: pl.DataFrame, cards: Callable[[pl.DataFrame], list[dict[str, Any]]]
) -> list[dict[str, Any]]:
    """Return real and synthetic faces of each synthesised expression."""
    labelled = rows.filter(pl.col("expression").is_not_null()).sort("face_id")
    synthetic = pl.col("source") == "synthetic"
    found = []
    for index in labelled.filter(synthetic)["expression"].unique().sort():
        part = labelled.filter(pl.col("expression") == index)
        found.append(
            {
                "name": EXPRESSIONS[index],
                "real": cards(part.filter(~synthetic).head(_PER_EXPRESSION)),
                "synthetic": cards(part.filter(synthetic).head(_PER_EXPRESSION)),
            }
        )
    return found


def _thumbnail(home: Home, key: str) -> str:
    """Return a small JPEG as a data URL."""
    import cv2

    small = cv2.resize(
        media.load(home, key), (_THUMBNAIL, _THUMBNAIL), interpolation=cv2.INTER_AREA
    )
    data = base64.b64encode(media.encode(small, ".jpg")).decode()
    return f"data:image/jpeg;base64,{data}"


# --- Clips ---


def film_strips(clips: pl.DataFrame, image: Callable[[str], str]) -> list[dict[str, Any]]:
    """Return a few clips as film strips, the strongest of each subject first.

    Args:
        clips: as ``clips.assign_splits`` returns them.
        image: converts a media key to an image URL.

    Returns:
        per clip ``clip_id, split, unit, intensity, seconds, frames, curves, events``. A frame has
        ``title, second, image``. If no frame shows the onset or offset, the first or last frame of
        the clip replaces it; a frame that would appear twice is None. Lengths are in a drawing of
        ``CURVE_WIDTH`` by ``CURVE_HEIGHT``, rounded to tenths.
    """
    with_frames = clips.filter(pl.col("times").list.len() > 0)
    if with_frames.is_empty():
        return []
    subject = pl.col("subject_id").fill_null(pl.col("video_id"))
    shown = (
        with_frames.sort("apex_intensity", "clip_id", descending=[True, False], nulls_last=True)
        .with_columns(rank=pl.int_range(pl.len()).over(subject))
        .sort("rank", "apex_intensity", "clip_id", descending=[False, True, False], nulls_last=True)
        .head(_MAX_CLIPS)
    )
    return [_film_strip(row, image) for row in shown.iter_rows(named=True)]


def _film_strip(row: Mapping[str, Any], image: Callable[[str], str]) -> dict[str, Any]:
    times, first = row["times"], row["start_s"]
    length = max(row["end_s"] - first, 1e-6)
    index_of = {event: nearest(times, row[f"{event}_s"]) for event in _EVENTS}
    frames = []
    for event, index in index_of.items():
        name = event
        if index is None and event != "apex":
            end = 0 if event == "onset" else len(times) - 1
            if end != index_of["apex"]:
                name, index = ("first frame" if end == 0 else "last frame"), end
        frames.append(
            {
                "title": name,
                "second": None if index is None else times[index] - first,
                "image": None if index is None else image(row["crops"][index]),
            }
        )
    units = _most_active(row)
    return {
        "clip_id": row["clip_id"],
        "split": row["split"],
        "unit": _AU_OF[units[0]][1] if units else None,
        "intensity": row["apex_intensity"],
        "seconds": row["end_s"] - first,
        "frames": frames,
        "curves": [
            {"code": _AU_OF[number][1].code, "path": _curve(row, number, length=length)}
            for number in reversed(units)
        ],
        "events": [
            {"title": event, "x": round(CURVE_WIDTH * (times[index] - first) / length, 1)}
            for event, index in index_of.items()
            if index is not None
        ],
    }


def _most_active(row: Mapping[str, Any]) -> list[int]:
    """Return the units with the largest range, the apex unit first."""
    rated = [values for values in row["au"] or [] if values is not None]
    if not rated:
        return []

    def extent(number: int) -> float:
        values = [rating[_AU_OF[number][0]] for rating in rated]
        return float(max(values) - min(values))

    active = sorted(_AU_OF, key=lambda number: (-extent(number), number))
    apex = row["apex_au"] if row["apex_au"] in _AU_OF else active[0]
    return [apex, *(number for number in active if number != apex)][:_CURVES]


def _curve(row: Mapping[str, Any], number: int, *, length: float) -> str:
    """Return an SVG path of a unit's intensities; unrated frames cut it."""
    steps: list[str] = []
    command = "M"
    for second, values in zip(row["times"], row["au"], strict=True):
        if values is None:
            command = "M"
            continue
        x = CURVE_WIDTH * (second - row["start_s"]) / length
        y = CURVE_HEIGHT * (1 - min(1.0, max(0.0, float(values[_AU_OF[number][0]]))))
        steps.append(f"{command}{x:.1f} {y:.1f}")
        command = "L"
    return " ".join(steps)


# --- Item flow (Sankey diagram) ---


def flow(counts: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return ``stage, total, kept_percent, segments`` of each stage, in order.

    A segment has ``verdict, reason, n, share`` (percent of the stage). The kept segments come
    first.
    """
    stages: dict[str, list[dict[str, Any]]] = {}
    for row in counts:
        stages.setdefault(str(row["stage"]), []).append(dict(row))
    found = []
    for name, segments in stages.items():
        segments.sort(
            key=lambda row: (_VERDICT_ORDER.get(row["verdict"], 3), -row["n"], row["reason"] or "")
        )
        total = sum(row["n"] for row in segments)
        kept = sum(row["n"] for row in segments if row["verdict"] == "kept")
        for row in segments:
            row["share"] = 100 * row["n"] / total if total else 0.0
        percent = round(100 * kept / total, 3) if total else 0.0
        found.append({"stage": name, "total": total, "segments": segments, "kept_percent": percent})
    return found


def diagram(stages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return a column per stage, and ribbons of the kept items.

    Returns:
        ``width, height`` of the drawing; ``columns`` (``x, top, title, total, bars, labels``) and
        ``ribbons`` (SVG paths). Lengths are rounded to tenths, so that pages are reproducible.
    """
    main = [stage for stage in stages if stage["stage"] != SIDE_STAGE]
    side = [stage for stage in stages if stage["stage"] == SIDE_STAGE]
    step = (_WIDTH - 150.0) / (len(main) - 1) if len(main) > 1 else 0.0
    last, bottom = len(main) - 1, _TOP + _HEIGHT
    columns, ribbons = [], []
    # Share of the last stage that enters from the side stage.
    added = sum(one["kept_percent"] * one["total"] / 100 for one in side)
    share = min(1.0, added / main[-1]["total"]) if main and main[-1]["total"] else 0.0
    for number, stage in enumerate(main):
        x = number * step
        columns.append(_column(stage, x, top=_TOP, height=_HEIGHT))
        if number:
            kept = main[number - 1]["kept_percent"]
            received = 1.0 - (share if number == last else 0.0)
            ribbons.append(
                _ribbon(x - step + _BAR, x, (_TOP, _TOP + kept * _HEIGHT / 100),
                        (_TOP, _TOP + _HEIGHT * received))
            )  # fmt: skip
    for stage in side:
        x = max(len(main) - 2, 0) * step
        top, height = bottom + 44.0, _HEIGHT * 0.4
        columns.append(_column(stage, x, top=top, height=height))
        ribbons.append(
            _ribbon(x + _BAR, last * step, (top, top + stage["kept_percent"] * height / 100),
                    (_TOP + _HEIGHT * (1 - share), _TOP + _HEIGHT))
        )  # fmt: skip
        bottom = top + height
    lowest = [label["y"] for column in columns for label in column["labels"]]
    return {
        "width": _WIDTH,
        "height": round(max([bottom, *lowest]) + 12, 1),
        "columns": columns,
        "ribbons": ribbons,
    }


def _column(stage: Mapping[str, Any], x: float, *, top: float, height: float) -> dict[str, Any]:
    bars, y = [], top
    for segment in stage["segments"]:
        length = segment["share"] * height / 100
        if segment["n"]:
            bars.append(dict(segment) | {"y": round(y, 1), "height": round(max(length, 1.0), 1)})
        y += length
    return {
        "x": round(x, 1), "top": top, "title": stage["stage"], "total": stage["total"],
        "bars": bars, "labels": _labels(bars, top),
    }  # fmt: skip


def _labels(bars: Sequence[Mapping[str, Any]], top: float) -> list[dict[str, Any]]:
    """Label each bar without overlap; sum up the smallest bars."""
    rest = bars[_MAX_LABELS:]
    labels = [
        {"n": bar["n"], "text": bar["reason"] or bar["verdict"], "verdict": bar["verdict"],
         "y": bar["y"] + bar["height"] / 2 + 4}
        for bar in bars[:_MAX_LABELS]
    ]  # fmt: skip
    if rest:
        labels.append(
            {"n": sum(bar["n"] for bar in rest), "text": f"for {len(rest)} more reasons",
             "verdict": rest[0]["verdict"], "y": rest[0]["y"]}
        )  # fmt: skip
    lowest = top - _LINE
    for label in labels:
        label["y"] = round(max(label["y"], lowest + _LINE), 1)
        lowest = label["y"]
    return labels


def _ribbon(x0: float, x1: float, left: tuple[float, float], right: tuple[float, float]) -> str:
    middle = (x0 + x1) / 2
    (a, b), (c, d) = left, right
    return (
        f"M{x0:.1f},{a:.1f} C{middle:.1f},{a:.1f} {middle:.1f},{c:.1f} {x1:.1f},{c:.1f} "
        f"L{x1:.1f},{d:.1f} C{middle:.1f},{d:.1f} {middle:.1f},{b:.1f} {x0:.1f},{b:.1f} Z"
    )
