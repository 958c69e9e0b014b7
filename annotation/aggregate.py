"""Deprecated alias of ``annotation.aggregation``, for one version."""

import warnings

from annotation.aggregation import (
    EARLIER_NAMES,
    METHODS,
    Aggregator,
    rater_quality,
    soft_labels,
    uncertainty,
    weighted,
)

__all__ = [
    "EARLIER_NAMES",
    "METHODS",
    "Aggregator",
    "rater_quality",
    "soft_labels",
    "uncertainty",
    "weighted",
]

warnings.warn(
    "annotation.aggregate is deprecated and ends with the next version; use annotation.aggregation",
    DeprecationWarning,
    stacklevel=2,
)
