"""Curation: effect of the audit thresholds, and the faces to review."""

from __future__ import annotations

import polars as pl

from warehouse.errors import TableError

THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.45, 0.5, 0.6, 0.7)
_SCORES = {"label_noise": "label_quality", "open_set": "open_set_score"}


def effects(decided: pl.DataFrame, thresholds: tuple[float, ...] = THRESHOLDS) -> pl.DataFrame:
    """Count the faces that each threshold of each audit would send to review.

    Args:
        decided: rows of the view ``decided_faces``.

    Returns:
        ``audit, threshold``, ``under`` (faces with a lower score), ``share`` of the faces with a
        score, ``newly`` (faces under the threshold that are kept now). Flags depend on more than
        the score, so ``under`` is an upper bound of the flags at that threshold.

    Raises:
        TableError: a column is missing.
    """
    _check(decided, {"decision", *_SCORES.values()})
    rows = []
    for audit, column in _SCORES.items():
        judged = decided.filter(pl.col(column).is_not_null())
        for threshold in thresholds:
            under = judged.filter(pl.col(column) < threshold)
            rows.append(
                {
                    "audit": audit,
                    "threshold": threshold,
                    "under": under.height,
                    "share": under.height / max(judged.height, 1),
                    "newly": under.filter(pl.col("decision") == "keep").height,
                }
            )
    return pl.DataFrame(rows)


def review(decided: pl.DataFrame) -> pl.DataFrame:
    """Return ``face_id, reasons, score`` of the faces to review, worst first.

    ``score`` in [0, 1] is the lower of the two audits' scores. Faces without a score are last.

    Raises:
        TableError: a column is missing.
    """
    _check(decided, {"face_id", "decision", "reasons", *_SCORES.values()})
    faces = decided.filter(pl.col("decision") == "review")
    return faces.select("face_id", "reasons", score=pl.min_horizontal(*_SCORES.values())).sort(
        "score", "face_id", nulls_last=True
    )


def _check(decided: pl.DataFrame, required: set[str]) -> None:
    if missing := sorted(required - set(decided.columns)):
        raise TableError(
            "Columns of decided_faces are missing",
            got=", ".join(missing),
            hint="pass views.query(home, 'SELECT * FROM decided_faces')",
        )
