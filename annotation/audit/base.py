"""What every audit hands back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from warehouse.storage.schema import TABLES


@dataclass(frozen=True)
class AuditResult:
    """One audit of one set.

    Attributes:
        rows: schema of ``audits``, sorted by face_id: ``score`` in [0, 1], low = bad, null where
            the audit has nothing to judge; ``flag``; ``detail`` as each audit says.
        score: of the set, in [0, 1], low = bad: the mean of the row scores, 1 without any,
            unless the audit says otherwise.
        statistics: what was learned, reusable on new data, and how; plain Python values.
    """

    rows: pl.DataFrame
    score: float
    statistics: dict[str, Any] = field(default_factory=dict)


def result_of(
    audit: str,
    *,
    face_ids: Sequence[str],
    scores: np.ndarray,
    flags: np.ndarray,
    details: Sequence[str | None],
    statistics: dict[str, Any],
) -> AuditResult:
    """Rows in the contract's shape from arrays in the order of ``face_ids``; NaN scores: null."""
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
