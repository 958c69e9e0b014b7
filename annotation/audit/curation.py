"""What the audits' thresholds do to a set, and which faces go back to people."""

from __future__ import annotations

import polars as pl

from warehouse.errors import TableError

THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.45, 0.5, 0.6, 0.7)
_SCORES = {"label_noise": "label_quality", "open_set": "open_set_score"}


def effects(decided: pl.DataFrame, thresholds: tuple[float, ...] = THRESHOLDS) -> pl.DataFrame:
    """How many faces each threshold of each audit would send back to people.

    Args:
        decided: rows of the view ``decided_faces``.

    Returns:
        ``audit, threshold, under`` (faces with a lower score), ``share`` of the faces that the
        audit judged, ``newly`` (those of them that are kept now). Flags look at more than the
        score, so ``under`` is an upper bound of the flags at that threshold.

    Raises:
        TableError: columns are missing.
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
    """``face_id, reasons, score`` of the faces that people should look at again, worst first.

    ``score`` in [0, 1] is the lower of the two audits' scores; faces that nobody can judge for
    want of a score come last.

    Raises:
        TableError: columns are missing.
    """
    _check(decided, {"face_id", "decision", "reasons", *_SCORES.values()})
    again = decided.filter(pl.col("decision") == "review")
    return again.select("face_id", "reasons", score=pl.min_horizontal(*_SCORES.values())).sort(
        "score", "face_id", nulls_last=True
    )


def _check(decided: pl.DataFrame, needed: set[str]) -> None:
    if missing := sorted(needed - set(decided.columns)):
        raise TableError(
            "rows of decided_faces",
            got=f"a frame without {', '.join(missing)}",
            hint="pass lens.ask(home, 'SELECT * FROM decided_faces')",
        )
