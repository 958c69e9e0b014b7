"""Audit inputs, checked: frames or arrays in, aligned arrays out, garbage refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from warehouse.errors import TableError
from warehouse.vocabulary import EXPRESSIONS, OPEN_SET, canonical

Values = pl.DataFrame | np.ndarray | Sequence[Any]
"""A frame with ``face_id``, or an array in the order of ``face_ids``."""

_SUM_TOLERANCE = 1e-3


def ids_of(face_ids: Sequence[str] | None, *inputs: Any) -> list[str]:
    """The order that all arrays of one audit share.

    ``face_ids`` when given, else the ``face_id`` column of the first frame among ``inputs``, else
    row numbers of the first input as text.

    Raises:
        TableError: an id repeats.
    """
    given = [value for value in inputs if value is not None]
    if face_ids is not None:
        ids = [str(name) for name in face_ids]
    elif frames := [value for value in given if isinstance(value, pl.DataFrame)]:
        ids = frames[0]["face_id"].to_list()
    else:
        ids = [str(number) for number in range(len(given[0]) if given else 0)]
    if len(set(ids)) < len(ids):
        raise TableError(
            "each face once", got="face_ids that repeat", hint="audit one row per face"
        )
    return ids


def matrix(
    values: Values,
    face_ids: list[str],
    *,
    name: str,
    column: str,
    width: int | None = None,
) -> np.ndarray:
    """float64[n, width] in the order of ``face_ids``, finite.

    Args:
        values: an array aligned with ``face_ids``, or a frame with ``face_id`` and ``column``.
        name: what to call it in an error.

    Raises:
        TableError: another shape, a face without a row, or a number that is not finite.
    """
    if isinstance(values, pl.DataFrame):
        rows = _aligned(values, face_ids, column=column)[column]
        if rows.null_count():
            raise TableError(
                f"{name} for every audited face",
                got=f"{rows.null_count()} faces without",
                hint="rate these faces first, or leave them out",
            )
        values = stacked(rows, name=name)
    array = np.asarray(values, dtype=np.float64)
    if not array.size:
        array = array.reshape(0, width or 1)
    if array.ndim != 2 or len(array) != len(face_ids) or (width and array.shape[1] != width):
        raise TableError(
            f"{name} of shape [{len(face_ids)}, {width or 'any'}]",
            got=f"{list(array.shape)}",
            hint="give one row per face, in the order of face_ids",
        )
    broken = ~np.isfinite(array).all(axis=1)
    if broken.any():
        raise TableError(
            f"finite {name}",
            got=f"NaN or infinity in {broken.sum()} rows, the first {face_ids[broken.argmax()]!r}",
            hint="rate these faces again, or leave them out",
        )
    return array


def stacked(rows: pl.Series, *, name: str) -> np.ndarray:
    """A column of vectors (lists or arrays) as float64[n, width]; NaN rows where null.

    Raises:
        TableError: vectors of different lengths, or holes in them.
    """
    if not rows.count():
        return np.full((rows.len(), 0), np.nan)
    lists = rows.arr.to_list() if isinstance(rows.dtype, pl.Array) else rows
    given = lists.drop_nulls()
    widths = given.list.len().unique()
    flat = given.explode()
    if widths.len() > 1 or flat.null_count():
        raise TableError(
            f"{name} of one length, without nulls",
            got=f"lengths {', '.join(map(str, widths.sort()))} and {flat.null_count()} nulls",
            hint="rate these faces again",
        )
    width = int(widths[0]) if widths.len() else 0
    array = np.full((rows.len(), width), np.nan)
    array[rows.is_not_null().to_numpy()] = flat.cast(pl.Float64).to_numpy().reshape(-1, width)
    return array


def distributions(values: Values, face_ids: list[str], *, name: str) -> np.ndarray:
    """``matrix`` of probabilities over the eight expressions, each row scaled to sum to 1.

    Raises:
        TableError: a value outside [0, 1] or a row that does not sum to 1 (logits, say).
    """
    array = matrix(values, face_ids, name=name, column="expression", width=len(EXPRESSIONS))
    total = array.sum(axis=1, keepdims=True)
    wrong = (np.abs(total[:, 0] - 1) > _SUM_TOLERANCE) | (array < 0).any(axis=1)
    if wrong.any():
        raise TableError(
            f"{name} that are at least 0 and sum to 1 in each row",
            got=f"{wrong.sum()} rows that are no distribution, first {face_ids[wrong.argmax()]!r}",
            hint="apply a softmax to logits; scale counts to shares",
        )
    return array / total


def soft(labels: Values, face_ids: list[str]) -> np.ndarray:
    """Labels of any usual form as float64[n, 8]; NaN rows for faces without a closed label.

    Args:
        labels: a ``soft_labels`` frame; or an array aligned with ``face_ids``: distributions
            [n, 8], indices into ``EXPRESSIONS`` (negative: none), or names and synonyms of
            expressions (``None`` and open-set answers: none).

    Raises:
        TableError: none of these.
    """
    if isinstance(labels, pl.DataFrame):
        column = _aligned(labels, face_ids, column="expression")["expression"]
        if not column.count():
            return np.full((len(face_ids), len(EXPRESSIONS)), np.nan)
        return _soft_rows(stacked(column, name="soft labels"), face_ids)
    rows = labels.tolist() if isinstance(labels, np.ndarray) else list(labels)
    if len(rows) != len(face_ids):
        raise TableError(
            f"{len(face_ids)} labels", got=f"{len(rows)}", hint="give one label per face"
        )
    if rows and isinstance(rows[0], list | tuple | np.ndarray):
        return _soft_rows(np.array(rows, dtype=float), face_ids)
    array = np.full((len(rows), len(EXPRESSIONS)), np.nan)
    for row, label in zip(array, rows, strict=True):
        if (index := _index(label)) is not None:
            row[:] = 0.0
            row[index] = 1.0
    return array


def open_votes(labels: Values, face_ids: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Open-set share float[n] in [0, 1] and number of voters float[n], 0 where unknown."""
    share, n_votes = np.zeros(len(face_ids)), np.zeros(len(face_ids))
    if isinstance(labels, pl.DataFrame):
        share = _aligned(labels, face_ids, column="open_set_share")["open_set_share"].to_numpy()
        n_votes = _aligned(labels, face_ids, column="n_votes")["n_votes"].to_numpy()
        return np.nan_to_num(share.astype(float)), np.nan_to_num(n_votes.astype(float))
    soft(labels, face_ids)
    for row, label in enumerate(labels.tolist() if isinstance(labels, np.ndarray) else labels):
        if isinstance(label, str):
            share[row], n_votes[row] = canonical(label) in OPEN_SET, 1
    return share, n_votes


def _soft_rows(array: np.ndarray, face_ids: list[str]) -> np.ndarray:
    known = ~np.isnan(array).all(axis=1)
    some = [face_id for face_id, is_known in zip(face_ids, known, strict=True) if is_known]
    checked = np.full((len(face_ids), len(EXPRESSIONS)), np.nan)
    checked[known] = distributions(array[known], some, name="soft labels")
    return checked


def _index(label: Any) -> int | None:
    try:
        if label is None or isinstance(label, str):
            name = None if label is None else canonical(label)
            return EXPRESSIONS.index(name) if name in EXPRESSIONS else None
        if isinstance(label, int) and label < len(EXPRESSIONS):
            return None if label < 0 else label
        raise KeyError(f"{label!r} is no index below {len(EXPRESSIONS)}")
    except KeyError as error:
        raise TableError(
            f"labels out of {', '.join(EXPRESSIONS)}",
            got=str(error.args[0]),
            hint="give names, indices, or distributions over the eight",
        ) from error


def _aligned(frame: pl.DataFrame, face_ids: list[str], *, column: str) -> pl.DataFrame:
    missing = {"face_id", column} - set(frame.columns)
    if missing:
        raise TableError(
            f"a frame with face_id and {column}",
            got=f"one without {', '.join(sorted(missing))}",
            hint="pass rows of the table as they are",
        )
    wanted = pl.DataFrame({"face_id": pl.Series(face_ids, dtype=pl.String)})
    aligned = wanted.join(frame.select("face_id", column), on="face_id", maintain_order="left")
    if aligned.height == wanted.height:
        return aligned
    found = wanted.join(frame, on="face_id", how="left", maintain_order="left")
    reason = "a face twice" if found.height > wanted.height else "faces without a row"
    raise TableError(
        f"one row of {column} per audited face", got=reason, hint="pass one rater's rows at a time"
    )
