"""One self-contained page about a release: numbers, galleries, and what became of every item."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from functools import partial
from typing import Any

import polars as pl

from warehouse.releases import filmstrip
from warehouse.releases.dataset_card import title
from warehouse.releases.diff import CHANGES
from warehouse.releases.pages import environment
from warehouse.releases.sankey import diagram, flow
from warehouse.releases.schema import SPLITS
from warehouse.storage import media
from warehouse.storage.home import Home
from warehouse.vocabulary import EXPRESSIONS

FILE = "report.html"

_GALLERY = 24
_FLAGGED = 12
_BESIDE = 4
_THUMB = 112
_BINS = 12


def render(
    contents: Mapping[str, Any],
    *,
    rows: pl.DataFrame,
    votes: pl.DataFrame,
    home: Home,
    sequences: pl.DataFrame | None = None,
) -> str:
    """The text of ``report.html``: no network, no script, light and dark.

    Args:
        contents: the manifest so far, with ``summary`` and ``facts``.
        rows: released faces with ``split``; a few dozen crops are inlined, small.
        votes: every vote; shown as counts beside the pictures.
        sequences: released clips with ``split``; a few are shown as film strips.
    """
    templates = environment(html=True)
    templates.filters["thousands"] = lambda number: f"{number:,}".replace(",", " ")
    labelled = rows.filter(
        pl.col("soft_label").is_not_null(), pl.col("source") != "synthetic"
    ).with_columns(doubt=_entropy())
    said = _answers(votes)
    return templates.get_template("report.html.j2").render(
        **contents,
        title=title(contents),
        split_names=SPLITS,
        expressions=EXPRESSIONS,
        flow=(stages := flow(contents["counts"])),
        diagram=diagram(stages),
        doubt=_histogram(labelled["doubt"]),
        gallery=_cards(_spread(labelled.sort("doubt", "face_id")), home, said),
        label_issues=_cards(_worst(rows, "is_label_issue", "label_quality"), home, said),
        open_set=_cards(_worst(rows, "is_open_set", "open_set_score"), home, said),
        duplicates=_pairs(rows, home, said),
        beside=_beside(rows, home, said),
        strips=[] if sequences is None else filmstrip.strips(sequences, partial(_thumb, home)),
        drawing=(filmstrip.WIDTH, filmstrip.HEIGHT),
        changes=CHANGES,
    )


def _entropy() -> pl.Expr:
    """Entropy of the soft label in bits, 0 (all agree) to 3 (all eight alike)."""
    shares = pl.col("soft_label").arr.to_list().cast(pl.List(pl.Float64))
    bits = pl.element().filter(pl.element() > 0)
    return -shares.list.eval(bits * bits.log(base=2)).list.sum()


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


def _spread(rows: pl.DataFrame) -> pl.DataFrame:
    """At most ``_GALLERY`` rows at even ranks, the first and the last among them."""
    if len(rows) <= _GALLERY:
        return rows
    ranks = [round(step * (len(rows) - 1) / (_GALLERY - 1)) for step in range(_GALLERY)]
    return rows[ranks]


def _worst(rows: pl.DataFrame, flag: str, score: str) -> pl.DataFrame:
    return rows.filter(pl.col(flag)).sort(score, "face_id").head(_FLAGGED)


def _answers(votes: pl.DataFrame) -> dict[str, list[tuple[str, int]]]:
    """Face to answers with counts, most frequent first."""
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


def _cards(
    rows: pl.DataFrame, home: Home, said: Mapping[str, list[tuple[str, int]]]
) -> list[dict[str, Any]]:
    return [_card(row, home, said) for row in rows.iter_rows(named=True)]


def _card(
    row: Mapping[str, Any], home: Home, said: Mapping[str, list[tuple[str, int]]]
) -> dict[str, Any]:
    label = row["soft_label"]
    parts = [] if label is None else zip(EXPRESSIONS, label, strict=True)
    shares = [
        {"name": name, "percent": round(100 * float(share), 2)} for name, share in parts if share
    ]
    return {
        "face_id": row["face_id"],
        "picture": _thumb(home, row["crop"]),
        "shares": shares,
        "name": None if row["expression"] is None else EXPRESSIONS[row["expression"]],
        "said": said.get(row["face_id"], []),
        "label_quality": row["label_quality"],
        "open_set_score": row["open_set_score"],
        "split": row["split"],
    }


def _pairs(
    rows: pl.DataFrame, home: Home, said: Mapping[str, list[tuple[str, int]]]
) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Near duplicates beside the face they repeat, where that one is released too."""
    twins = rows.filter(pl.col("duplicate_of").is_in(rows["face_id"].implode()))
    # One pair per original first, so that one still scene does not fill the page.
    shown = (
        twins.sort("duplicate_of", "face_id")
        .unique("duplicate_of", keep="first")
        .sort("face_id")
        .head(_FLAGGED // 2)
    )
    originals = rows.filter(pl.col("face_id").is_in(shown["duplicate_of"].implode()))
    by_id = {card["face_id"]: card for card in _cards(originals, home, said)}
    return [
        (by_id[twin], _card(row, home, said))
        for twin, row in zip(shown["duplicate_of"], shown.iter_rows(named=True), strict=True)
    ]


def _beside(
    rows: pl.DataFrame, home: Home, said: Mapping[str, list[tuple[str, int]]]
) -> list[dict[str, Any]]:
    """Per expression that was made, made faces and as many real ones of the same largest share."""
    made = rows.filter(pl.col("source") == "synthetic", pl.col("expression").is_not_null())
    seen = rows.filter(pl.col("source") != "synthetic", pl.col("expression").is_not_null())
    found = []
    for index in made["expression"].unique().sort():
        pair = [
            part.filter(pl.col("expression") == index).sort("face_id").head(_BESIDE)
            for part in (seen, made)
        ]
        cards = [_cards(part, home, said) for part in pair]
        found.append({"name": EXPRESSIONS[index], "seen": cards[0], "made": cards[1]})
    return found


def _thumb(home: Home, key: str) -> str:
    """A small JPEG as a data URL."""
    import cv2

    image = media.load(home, key)
    small = cv2.resize(image, (_THUMB, _THUMB), interpolation=cv2.INTER_AREA)
    data = base64.b64encode(media.encode(small, ".jpg")).decode()
    return f"data:image/jpeg;base64,{data}"
