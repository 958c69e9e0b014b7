"""Audit results, and validation of the inputs that audits share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from warehouse.errors import TableError
from warehouse.storage.schema import TABLES
from warehouse.vocabulary import EXPRESSIONS, OPEN_SET, canonical

Values = pl.DataFrame | np.ndarray | Sequence[Any]
"""A frame with ``face_id``, or an array in the order of ``face_ids``."""

_SUM_TOLERANCE = 1e-3


@dataclass(frozen=True)
class AuditResult:
    """Result of one audit of one set.

    Attributes:
        rows: schema of the table ``audits``, sorted by face_id. ``score`` in [0, 1], low = bad,
            null if the face cannot be judged; ``flag``; ``detail`` as documented by the audit.
        score: of the set, in [0, 1], low = bad. The mean of the row scores, 1 without any, unless
            the audit says otherwise.
        statistics: fitted values and counts, as plain Python values.
    """

    rows: pl.DataFrame
    score: float
    statistics: dict[str, Any] = field(default_factory=dict)


def audit_result(
    audit: str,
    *,
    face_ids: Sequence[str],
    scores: np.ndarray,
    flags: np.ndarray,
    details: Sequence[str | None],
    statistics: dict[str, Any],
) -> AuditResult:
    """Build a result from arrays in the order of ``face_ids``."""
    frame = pl.DataFrame(
        {
            "face_id": pl.Series(face_ids, dtype=pl.String),
            "audit": pl.Series([audit] * len(face_ids), dtype=pl.String),
            "score": pl.Series(np.asarray(scores, dtype=float)).fill_nan(None),
            "flag": pl.Series(np.asarray(flags, dtype=bool)),
            "detail": pl.Series(details, dtype=pl.String),
        }
    )
    rows = frame.select(*TABLES["audits"].columns).sort("face_id")
    mean = rows["score"].mean()
    return AuditResult(rows, float(mean) if isinstance(mean, float) else 1.0, statistics)


def ids_of(face_ids: Sequence[str] | None, *inputs: Any) -> list[str]:
    """Return the face ids in the order that all arrays of one audit share.

    ``face_ids`` if given, else the ``face_id`` column of the first frame among ``inputs``, else
    the row numbers of the first input as text.

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
            "A face occurs twice", got="face_ids that repeat", hint="pass one row per face"
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
    """Convert to finite float64[n, width] in the order of ``face_ids``.

    Args:
        values: an array aligned with ``face_ids``, or a frame with ``face_id`` and ``column``.
        name: name of the input in error messages.

    Raises:
        TableError: the shape is wrong, a face has no row, or a value is not finite.
    """
    if isinstance(values, pl.DataFrame):
        rows = _aligned(values, face_ids, column=column)[column]
        if rows.null_count():
            raise TableError(
                f"Faces have no {name}",
                got=f"{rows.null_count()} faces",
                hint="rate these faces first, or leave them out",
            )
        values = stack_vectors(rows, name=name)
    array = np.asarray(values, dtype=np.float64)
    if not array.size:
        array = array.reshape(0, width or 1)
    if array.ndim != 2 or len(array) != len(face_ids) or (width and array.shape[1] != width):
        raise TableError(
            f"The shape of {name} is not [{len(face_ids)}, {width or 'any'}]",
            got=f"{list(array.shape)}",
            hint="give one row per face, in the order of face_ids",
        )
    broken = ~np.isfinite(array).all(axis=1)
    if broken.any():
        raise TableError(
            f"Values of {name} are not finite",
            got=f"NaN or infinity in {broken.sum()} rows, the first {face_ids[broken.argmax()]!r}",
            hint="rate these faces again, or leave them out",
        )
    return array


def stack_vectors(rows: pl.Series, *, name: str) -> np.ndarray:
    """Stack a column of vectors as float64[n, width]; NaN rows for null.

    Raises:
        TableError: the vectors have different lengths or contain nulls.
    """
    if not rows.count():
        return np.full((rows.len(), 0), np.nan)
    lists = rows.arr.to_list() if isinstance(rows.dtype, pl.Array) else rows
    given = lists.drop_nulls()
    widths = given.list.len().unique()
    flat = given.explode()
    if widths.len() > 1 or flat.null_count():
        raise TableError(
            f"Vectors of {name} differ in length or contain nulls",
            got=f"lengths {', '.join(map(str, widths.sort()))} and {flat.null_count()} nulls",
            hint="rate these faces again",
        )
    width = int(widths[0]) if widths.len() else 0
    array = np.full((rows.len(), width), np.nan)
    array[rows.is_not_null().to_numpy()] = flat.cast(pl.Float64).to_numpy().reshape(-1, width)
    return array


def distributions(values: Values, face_ids: list[str], *, name: str) -> np.ndarray:
    """Convert to float64[n, 8] over the expressions; rows sum to 1.

    Raises:
        TableError: as ``matrix``; a value is negative; a row does not sum to 1 (as logits).
    """
    array = matrix(values, face_ids, name=name, column="expression", width=len(EXPRESSIONS))
    total = array.sum(axis=1, keepdims=True)
    wrong = (np.abs(total[:, 0] - 1) > _SUM_TOLERANCE) | (array < 0).any(axis=1)
    if wrong.any():
        raise TableError(
            f"Rows of {name} are negative or do not sum to 1",
            got=f"{wrong.sum()} rows are no distribution, the first {face_ids[wrong.argmax()]!r}",
            hint="apply a softmax to logits; scale counts to shares",
        )
    return array / total


def soft_label_matrix(labels: Values, face_ids: list[str]) -> np.ndarray:
    """Convert labels to float64[n, 8]; NaN rows without a closed label.

    Args:
        labels: a ``soft_labels`` frame, or an array aligned with ``face_ids``: distributions
            [n, 8], indices into ``EXPRESSIONS`` (negative: none), or names and synonyms of
            expressions (``None`` and open-set answers: none).

    Raises:
        TableError: the labels have another form.
    """
    if isinstance(labels, pl.DataFrame):
        column = _aligned(labels, face_ids, column="expression")["expression"]
        if not column.count():
            return np.full((len(face_ids), len(EXPRESSIONS)), np.nan)
        return _soft_rows(stack_vectors(column, name="soft labels"), face_ids)
    rows = labels.tolist() if isinstance(labels, np.ndarray) else list(labels)
    if len(rows) != len(face_ids):
        raise TableError(
            f"The number of labels is not {len(face_ids)}",
            got=f"{len(rows)}",
            hint="give one label per face",
        )
    if rows and isinstance(rows[0], list | tuple | np.ndarray):
        return _soft_rows(np.array(rows, dtype=float), face_ids)
    array = np.full((len(rows), len(EXPRESSIONS)), np.nan)
    for row, label in zip(array, rows, strict=True):
        if (index := _expression_index(label)) is not None:
            row[:] = 0.0
            row[index] = 1.0
    return array


def open_set_votes(labels: Values, face_ids: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return open-set share in [0, 1] and number of voters, float[n] each.

    Both are 0 where unknown. Of arrays, only text labels count, as one vote each.
    """
    if isinstance(labels, pl.DataFrame):
        columns = ("open_set_share", "n_votes")
        share, n_votes = (_aligned(labels, face_ids, column=c)[c].to_numpy() for c in columns)
        return np.nan_to_num(share.astype(float)), np.nan_to_num(n_votes.astype(float))
    soft_label_matrix(labels, face_ids)
    share, n_votes = np.zeros(len(face_ids)), np.zeros(len(face_ids))
    for row, label in enumerate(labels.tolist() if isinstance(labels, np.ndarray) else labels):
        if isinstance(label, str):
            share[row], n_votes[row] = canonical(label) in OPEN_SET, 1
    return share, n_votes


def _soft_rows(array: np.ndarray, face_ids: list[str]) -> np.ndarray:
    known = ~np.isnan(array).all(axis=1)
    ids = [face_id for face_id, is_known in zip(face_ids, known, strict=True) if is_known]
    checked = np.full((len(face_ids), len(EXPRESSIONS)), np.nan)
    checked[known] = distributions(array[known], ids, name="soft labels")
    return checked


def _expression_index(label: Any) -> int | None:
    try:
        if label is None or isinstance(label, str):
            name = None if label is None else canonical(label)
            return EXPRESSIONS.index(name) if name in EXPRESSIONS else None
        if isinstance(label, int) and label < len(EXPRESSIONS):
            return None if label < 0 else label
        raise KeyError(f"{label!r} is no index below {len(EXPRESSIONS)}")
    except KeyError as error:
        raise TableError(
            "Unknown label",
            got=str(error.args[0]),
            hint=f"give indices, distributions, or names out of {', '.join(EXPRESSIONS)}",
        ) from error


def _aligned(frame: pl.DataFrame, face_ids: list[str], *, column: str) -> pl.DataFrame:
    if missing := {"face_id", column} - set(frame.columns):
        raise TableError(
            f"Columns are missing beside {column}",
            got=", ".join(sorted(missing)),
            hint="pass rows of the table unchanged",
        )
    wanted = pl.DataFrame({"face_id": pl.Series(face_ids, dtype=pl.String)})
    aligned = wanted.join(frame.select("face_id", column), on="face_id", maintain_order="left")
    if aligned.height == wanted.height:
        return aligned
    found = wanted.join(frame, on="face_id", how="left", maintain_order="left")
    raise TableError(
        f"There is not one row of {column} per face",
        got="a face twice" if found.height > wanted.height else "faces without a row",
        hint="pass the rows of one rater at a time",
    )
