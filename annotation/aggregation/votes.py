"""The vote table: validated votes in a fixed order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import polars as pl

from warehouse.errors import TableError
from warehouse.vocabulary import ANSWERS, EXPRESSIONS, canonical

FloatArray = npt.NDArray[np.float64]

_REQUIRED = ("face_id", "rater_id", "label")
_MAX_EXAMPLES = 5
_SUM_TOLERANCE = 1e-2
_ANSWER_SCHEMA = pl.Schema(
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
    """Votes in a fixed order, without duplicates.

    Attributes:
        answers: one row per face, rater and answer, sorted. ``face`` and ``rater`` are positions in
            ``face_ids`` and ``rater_ids``, ``answer`` an index into ``ANSWERS``. ``weight`` > 0
            counts in the soft label. ``share`` in (0, 1] is the answer's part of all answers of
            this rater about this face.
        affect: one row per face with ``valence, arousal``: weighted means over raters, null
            without a value.
        face_ids, rater_ids: sorted.
        machine: float64[n_faces, 10] over ``ANSWERS``, rows sum to 1: the answers that machine
            raters predict. NaN rows for unrated faces. ``None`` without machine raters.
        start: float64[n_faces, 8]: an earlier fit to start EM from. NaN rows for new faces.
    """

    answers: pl.DataFrame
    affect: pl.DataFrame
    face_ids: list[str]
    rater_ids: list[str]
    machine: FloatArray | None = None
    start: FloatArray | None = None

    def counts(self, column: str | None = "weight") -> FloatArray:
        """Sum ``weight`` or ``share`` per face and answer: float64[n_faces, 10].

        With ``column=None`` every answer counts as one.
        """
        rows = self.answers
        return self.sum(np.ones(rows.height) if column is None else rows[column].to_numpy())

    def sum(self, values: FloatArray) -> FloatArray:
        """Sum one value per row of ``answers``: float64[n_faces, 10].

        Smallest first: pseudonyms differ between homes, and with another order of the raters the
        last bit of a sum would differ.
        """
        table = np.zeros((len(self.face_ids), len(ANSWERS)))
        order = np.argsort(values, kind="stable")
        face, answer = (self.answers[name].to_numpy()[order] for name in ("face", "answer"))
        np.add.at(table, (face, answer), values[order])
        return table

    def closed_counts(self) -> FloatArray:
        """Weights of the closed answers only: float64[n_faces, 8]."""
        return self.counts()[:, : len(EXPRESSIONS)]

    def n_raters(self) -> npt.NDArray[np.int64]:
        """Count the distinct raters per face: int64[n_faces]."""
        pairs = self.answers.select("face", "rater").unique()
        return np.bincount(pairs["face"].to_numpy(), minlength=len(self.face_ids))

    def with_ids(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Add ``face_id`` and ``rater_id`` to a frame with ``face`` and ``rater``."""
        faces = pl.Series("face_id", self.face_ids, dtype=pl.String)
        raters = pl.Series("rater_id", self.rater_ids, dtype=pl.String)
        return frame.with_columns(faces.gather(frame["face"]), raters.gather(frame["rater"]))


def to_frame(votes: object) -> pl.DataFrame:
    """Return a table as a Polars frame whose ids are text.

    Polars, pandas and Arrow tables and mappings of columns are taken; ids may be integers, as in
    Label Studio.

    Raises:
        TableError: it is no table, or its ids are neither text nor integers.
    """
    if isinstance(votes, pl.LazyFrame):
        votes = votes.collect()
    try:
        if votes is None or isinstance(votes, str | bytes):
            raise TypeError
        frame = votes if isinstance(votes, pl.DataFrame) else pl.DataFrame(cast("Any", votes))
    except (TypeError, ValueError, ImportError, pl.exceptions.PolarsError) as error:
        raise TableError(
            "The votes are not a table",
            got=f"{type(votes).__name__}: {error}".removesuffix(": "),
            hint="pass a frame of Polars, pandas or Arrow with face_id, rater_id and label",
        ) from None
    ids = [name for name in ("face_id", "rater_id") if name in frame.columns]
    for name in ids:
        dtype = frame.schema[name]
        text = dtype in (pl.String, pl.Categorical, pl.Enum, pl.Null)
        if not (text or dtype.is_integer()):
            raise TableError(
                f"The column {name} holds neither text nor integers",
                got=str(dtype),
                hint="cast it to text",
            )
    return frame.with_columns(pl.col(ids).cast(pl.String))


def tally(
    votes: pl.DataFrame | pl.LazyFrame,
    *,
    machine: pl.DataFrame | None = None,
    start: pl.DataFrame | None = None,
) -> VoteTable:
    """Validate votes and put them in order.

    Args:
        votes: ``face_id, rater_id, label`` (an answer of the vocabulary or a synonym) and
            optionally ``weight`` (finite, at least 0), ``valence`` and ``arousal`` (null or NaN:
            not given). Other columns are ignored. Without ``weight``, each of the k answers of a
            rater about a face counts 1/k. A repeated row (same face, rater and answer) counts
            once, with its largest weight. Rows of weight 0 are ignored. Tables of other libraries
            are converted, see ``to_frame``.
        machine: rows of the table ``ratings`` (``face_id, expression, open_set``). Several raters
            of a face are averaged; faces without votes are ignored; rows that are not a
            distribution count as missing.
        start: rows of the table ``soft_labels`` (``face_id, expression``).

    Raises:
        TableError: it is no table, a column is missing, a key is null, a label is unknown, or a
            weight is negative or not finite.
    """
    votes = to_frame(votes)
    _check_columns(votes)
    answers = votes.with_columns(answer=_to_answers(votes["label"]), weight=_weights(votes))
    answers = answers.filter(pl.col("weight") > 0)
    key = ("face_id", "rater_id", "answer")
    unique = answers.group_by(key).agg(pl.col("weight").max()).sort(key)
    rater_total = pl.col("weight").sum().over("face_id", "rater_id")
    unique = unique.with_columns(share=pl.col("weight") / rater_total)
    if "weight" not in votes.columns:
        unique = unique.with_columns(weight=pl.col("share"))
    face_ids = sorted(unique["face_id"].unique())
    rater_ids = sorted(unique["rater_id"].unique())
    numbered = unique.select(
        face=_positions(unique["face_id"], face_ids),
        rater=_positions(unique["rater_id"], rater_ids),
        answer="answer",
        weight="weight",
        share="share",
    ).sort("face", "rater", "answer")
    return VoteTable(
        answers=numbered.cast(_ANSWER_SCHEMA),
        affect=_mean_affect(answers, unique),
        face_ids=face_ids,
        rater_ids=rater_ids,
        machine=None if machine is None else _machine_answers(machine, face_ids),
        start=None if start is None else _mean_vectors(start, "expression", 8, face_ids),
    )


def _machine_answers(ratings: pl.DataFrame, face_ids: list[str]) -> FloatArray:
    closed = _mean_vectors(ratings, "expression", len(EXPRESSIONS), face_ids)
    open_set = _mean_vectors(ratings, "open_set", 2, face_ids)
    answers = np.hstack([closed * (1 - open_set.sum(axis=1, keepdims=True)), open_set])
    total = answers.sum(axis=1, keepdims=True)
    bad = ~((np.abs(total - 1) < _SUM_TOLERANCE) & (answers >= 0).all(axis=1, keepdims=True))
    return np.where(bad, np.nan, answers / np.where(bad, 1, total))


def _mean_vectors(frame: pl.DataFrame, column: str, width: int, face_ids: list[str]) -> FloatArray:
    """Average a column of vectors per face: float64[n, width] with NaN rows."""
    if missing := {"face_id", column} - set(frame.columns):
        raise TableError(
            f"Columns are missing beside {column}",
            got=", ".join(sorted(missing)),
            hint="pass rows of the table ratings or soft_labels unchanged",
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
    if missing := [column for column in _REQUIRED if column not in votes.columns]:
        raise TableError(
            "Columns are missing in the vote table",
            got=", ".join(missing),
            hint="give one row per face, rater and answer, with face_id, rater_id and label",
        )
    if empty := [column for column in _REQUIRED if votes[column].null_count()]:
        raise TableError(
            "The vote table has nulls",
            got=f"nulls in {', '.join(empty)}",
            hint="leave skipped faces out of the vote table",
        )


def _to_answers(labels: pl.Series) -> pl.Series:
    known: dict[str, int] = {}
    unknown: list[str] = []
    for label in labels.cast(pl.String).unique().sort():
        try:
            known[label] = ANSWERS.index(canonical(label))
        except KeyError:
            unknown.append(label)
    if unknown:
        extra = len(unknown) - _MAX_EXAMPLES
        raise TableError(
            "Unknown labels in the vote table",
            got=", ".join(map(repr, unknown[:_MAX_EXAMPLES]))
            + (f" and {extra} more" if extra > 0 else ""),
            hint=f"rename them to one of {', '.join(ANSWERS)}",
        )
    return labels.cast(pl.String).replace_strict(known, return_dtype=pl.Int64)


def _weights(votes: pl.DataFrame) -> pl.Series:
    if "weight" not in votes.columns:
        return pl.Series([1.0] * votes.height, dtype=pl.Float64)
    weights = votes["weight"].cast(pl.Float64)
    bad = weights.filter(weights.is_null() | ~weights.is_finite() | (weights < 0))
    if bad.len():
        raise TableError(
            "Vote weights are not finite and at least 0",
            got=f"{bad.len()} invalid weights, the first {bad[0]}",
            hint="fix them, or drop the column to count every rater equally",
        )
    return weights


def _mean_affect(answers: pl.DataFrame, unique: pl.DataFrame) -> pl.DataFrame:
    given = answers.with_columns(
        (pl.col(name).cast(pl.Float64) if name in answers.columns else pl.lit(None, pl.Float64))
        .pipe(lambda value: pl.when(value.is_finite()).then(value))
        .alias(name)
        for name in ("valence", "arousal")
    )
    # A rater's valence repeats on each of the rater's answers but is one opinion.
    key = ("face_id", "rater_id")
    opinions = given.group_by(key).agg(pl.col("valence", "arousal").mean())
    opinions = opinions.join(unique.group_by(key).agg(pl.col("weight").sum()), on=key)
    means = {
        name: (pl.col(name) * pl.col("weight")).sum()
        / pl.col("weight").filter(pl.col(name).is_not_null()).sum()
        for name in ("valence", "arousal")
    }
    affect = opinions.sort("rater_id").group_by("face_id", maintain_order=True).agg(**means)
    return affect.sort("face_id").with_columns(pl.col("valence", "arousal").fill_nan(None))


def _positions(values: pl.Series, order: list[str]) -> pl.Series:
    names = pl.Series(order, dtype=pl.String)
    return values.cast(pl.String).replace_strict(
        names, pl.Series(range(len(order)), dtype=pl.Int64), return_dtype=pl.Int64
    )
