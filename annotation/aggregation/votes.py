"""The long vote table, checked once: who answered what, and how much that counts."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from warehouse.errors import TableError
from warehouse.vocabulary import ANSWERS, EXPRESSIONS, canonical

_NEEDED = ("face_id", "rater_id", "label")
_EXAMPLES = 5
_SUM_TOLERANCE = 1e-2
_COLUMNS = pl.Schema(
    {
        "face": pl.Int64,
        "rater": pl.Int64,
        "answer": pl.Int64,
        "weight": pl.Float64,
        "share": pl.Float64,
    }
)


@dataclass(frozen=True)
class VoteTable:
    """Votes in a fixed order, with nothing repeated.

    Attributes:
        answers: one row per face, rater and answer, sorted: ``face, rater`` (row numbers of
            ``face_ids`` and ``rater_ids``), ``answer`` (index into ``ANSWERS``), ``weight``
            (> 0: what the answer counts in a soft label), ``share`` (in (0, 1]: this answer's
            part of all this rater said of this face; sums to 1 per face and rater).
        moods: one row per face with ``valence, arousal``: weighted means over raters, null
            where nobody said.
        face_ids, rater_ids: sorted.
        machine: float64[n_faces, 10] over ``ANSWERS``, rows sum to 1: what machine raters expect
            people to answer; NaN rows for faces that none rated. ``None`` without any.
        start: float64[n_faces, 8], an earlier fit to begin from; NaN rows for new faces.
    """

    answers: pl.DataFrame
    moods: pl.DataFrame
    face_ids: list[str]
    rater_ids: list[str]
    machine: np.ndarray | None = None
    start: np.ndarray | None = None

    def counts(self, column: str = "weight") -> np.ndarray:
        """float64[n_faces, 10]: the sum of ``weight`` (or ``share``) per face and answer."""
        table = np.zeros((len(self.face_ids), len(ANSWERS)))
        cells = (self.answers["face"].to_numpy(), self.answers["answer"].to_numpy())
        np.add.at(table, cells, self.answers[column].to_numpy())
        return table

    def named(self, frame: pl.DataFrame) -> pl.DataFrame:
        """``frame`` with ``face_id`` and ``rater_id`` beside its ``face`` and ``rater``."""
        faces = pl.Series("face_id", self.face_ids, dtype=pl.String)
        raters = pl.Series("rater_id", self.rater_ids, dtype=pl.String)
        return frame.with_columns(faces.gather(frame["face"]), raters.gather(frame["rater"]))

    def n_raters(self) -> np.ndarray:
        """int64[n_faces]: distinct raters per face."""
        pairs = self.answers.select("face", "rater").unique()
        return np.bincount(pairs["face"].to_numpy(), minlength=len(self.face_ids))

    def closed(self) -> np.ndarray:
        """float64[n_faces, 8]: weights of the closed answers only."""
        return self.counts()[:, : len(EXPRESSIONS)]


def tally(votes: pl.DataFrame) -> VoteTable:
    """Check a long vote table and put it in order.

    Args:
        votes: ``face_id, rater_id, label`` (an answer of the vocabulary or a synonym), and
            optionally ``weight`` (finite, at least 0), ``valence``, ``arousal`` (no number or
            null: not said). Other columns are ignored. Without ``weight`` a rater who gave k
            answers about a face counts 1/k for each, so that every rater has one say. A row that
            repeats (same face, rater and answer) counts once, with its largest weight; rows of
            weight 0 do not count at all.

    Raises:
        TableError: a column is missing, a key is null, a label is unknown, a weight is negative
            or not finite.
    """
    _check_columns(votes)
    named = votes.with_columns(answer=_answers(votes["label"]), weight=_weights(votes))
    named = named.filter(pl.col("weight") > 0)
    key = ("face_id", "rater_id", "answer")
    single = named.group_by(key).agg(pl.col("weight").max()).sort(key)
    said = pl.col("weight").sum().over("face_id", "rater_id")
    single = single.with_columns(share=pl.col("weight") / said)
    if "weight" not in votes.columns:
        single = single.with_columns(weight=pl.col("share"))
    face_ids = sorted(single["face_id"].unique())
    rater_ids = sorted(single["rater_id"].unique())
    answers = single.select(
        face=_rank(single["face_id"], face_ids),
        rater=_rank(single["rater_id"], rater_ids),
        answer="answer",
        weight="weight",
        share="share",
    ).sort("face", "rater", "answer")
    answers = answers.cast(_COLUMNS)
    return VoteTable(answers, _moods(named, single), face_ids, rater_ids)


def with_machine(
    votes: VoteTable, machine: pl.DataFrame | None, *, start: pl.DataFrame | None = None
) -> VoteTable:
    """``votes`` with what machine raters say of the same faces, and an earlier fit to begin from.

    Args:
        machine: rows of ``ratings``: ``face_id, expression, open_set``; several raters of a face
            are averaged, faces without votes ignored. Rows that are no distribution count as
            missing.
        start: rows of ``soft_labels``: ``face_id, expression``.

    Raises:
        TableError: a column is missing.
    """
    width = len(EXPRESSIONS)
    readings = begun = None
    if machine is not None:
        closed = _mean_of(machine, "expression", width=width, face_ids=votes.face_ids)
        opened = _mean_of(machine, "open_set", width=2, face_ids=votes.face_ids)
        inside = 1 - opened.sum(axis=1, keepdims=True)
        readings = np.hstack([closed * inside, opened])
        total = readings.sum(axis=1, keepdims=True)
        bad = ~((np.abs(total - 1) < _SUM_TOLERANCE) & (readings >= 0).all(axis=1, keepdims=True))
        readings = np.where(bad, np.nan, readings / np.where(bad, 1, total))
    if start is not None:
        begun = _mean_of(start, "expression", width=width, face_ids=votes.face_ids)
    return replace(votes, machine=readings, start=begun)


def _mean_of(frame: pl.DataFrame, column: str, *, width: int, face_ids: list[str]) -> np.ndarray:
    """A column of vectors as float64[n, width], averaged per face; NaN rows where there is none."""
    if missing := {"face_id", column} - set(frame.columns):
        raise TableError(
            f"a frame with face_id and {column}",
            got=f"one without {', '.join(sorted(missing))}",
            hint="pass rows of ratings or of soft_labels as they are",
        )
    lists = frame[column]
    lists = lists.arr.to_list() if isinstance(lists.dtype, pl.Array) else lists
    flat = pl.DataFrame({"face_id": frame["face_id"], "values": lists}).select(
        "face_id",
        *(pl.col("values").list.get(i, null_on_oob=True).cast(pl.Float64).alias(f"v{i}")
          for i in range(width)),
    )  # fmt: skip
    means = flat.drop_nulls().sort(pl.all()).group_by("face_id", maintain_order=True).mean()
    wanted = pl.DataFrame({"face_id": pl.Series(face_ids, dtype=pl.String)})
    rows = wanted.join(means, on="face_id", how="left", maintain_order="left")
    return rows.drop("face_id").fill_null(float("nan")).to_numpy().reshape(len(face_ids), width)


def _check_columns(votes: pl.DataFrame) -> None:
    missing = [column for column in _NEEDED if column not in votes.columns]
    if missing:
        raise TableError(
            f"a vote table with the columns {', '.join(_NEEDED)}",
            got=f"one without {', '.join(missing)}",
            hint="give one row per face, rater and answer",
        )
    holes = [column for column in _NEEDED if votes[column].null_count()]
    if holes:
        raise TableError(
            "votes that name their face, rater and label",
            got=f"nulls in {', '.join(holes)}",
            hint="leave skipped faces out of the vote table",
        )


def _answers(labels: pl.Series) -> pl.Series:
    known: dict[str, int] = {}
    unknown: list[str] = []
    for label in labels.cast(pl.String).unique().sort():
        try:
            known[label] = ANSWERS.index(canonical(label))
        except KeyError:
            unknown.append(label)
    if unknown:
        more = f" and {len(unknown) - _EXAMPLES} more" if len(unknown) > _EXAMPLES else ""
        raise TableError(
            f"labels out of {', '.join(ANSWERS)} or their usual synonyms",
            got=", ".join(map(repr, unknown[:_EXAMPLES])) + more,
            hint="rename them in the vote table",
        )
    return labels.cast(pl.String).replace_strict(known, return_dtype=pl.Int64)


def _weights(votes: pl.DataFrame) -> pl.Series:
    if "weight" not in votes.columns:
        return pl.Series([1.0] * votes.height, dtype=pl.Float64)
    weights = votes["weight"].cast(pl.Float64)
    bad = weights.filter(weights.is_null() | ~weights.is_finite() | (weights < 0))
    if bad.len():
        raise TableError(
            "vote weights that are finite and at least 0",
            got=f"{bad.len()} others, the first {bad[0]}",
            hint="give each vote a weight, or leave the column out to count every rater alike",
        )
    return weights


def _moods(named: pl.DataFrame, single: pl.DataFrame) -> pl.DataFrame:
    given = named.with_columns(
        (pl.col(name).cast(pl.Float64) if name in named.columns else pl.lit(None, pl.Float64))
        .pipe(lambda value: pl.when(value.is_finite()).then(value))
        .alias(name)
        for name in ("valence", "arousal")
    )
    # A rater's valence is repeated on each of the rater's answers; it is one opinion.
    rater = ("face_id", "rater_id")
    opinions = given.group_by(rater).agg(pl.col("valence", "arousal").mean())
    opinions = opinions.join(single.group_by(rater).agg(pl.col("weight").sum()), on=rater)
    said = {
        name: (pl.col(name) * pl.col("weight")).sum()
        / pl.col("weight").filter(pl.col(name).is_not_null()).sum()
        for name in ("valence", "arousal")
    }
    means = opinions.sort("rater_id").group_by("face_id", maintain_order=True).agg(**said)
    return means.sort("face_id").with_columns(pl.col("valence", "arousal").fill_nan(None))


def _rank(values: pl.Series, order: list[str]) -> pl.Series:
    names = pl.Series(order, dtype=pl.String)
    return values.cast(pl.String).replace_strict(
        names, pl.Series(range(len(order)), dtype=pl.Int64), return_dtype=pl.Int64
    )
