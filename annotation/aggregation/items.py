"""Aggregate answers about items of any kind, by the type of the answer.

Choices become distributions over their label set, open words unions with frequencies, spans
shares over time and a consensus, continuous traces a mean, an evaluator-weighted mean and the
agreement of the raters. Texts are never merged.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from annotation.aggregation.base import entropy_bits
from warehouse import label_sets
from warehouse.label_sets import LabelSet
from warehouse.storage.schema import TABLES

FloatArray = npt.NDArray[np.float64]

METHOD = "item_share"

_LABEL = "label"


def item_soft_labels(votes: pl.DataFrame) -> pl.DataFrame:
    """Aggregate choices into one soft label per item and label set.

    Each rater counts 1, shared among the answers given. Intensities count by their share of the
    rater's sum. ``unknown`` and other open answers go to ``open_set_share``; an item whose raters
    all gave one has no distribution.

    Args:
        votes: rows of the view ``item_votes``.

    Returns:
        Rows of the table ``soft_labels`` with ``face_id`` and ``expression`` null, by item.
    """
    rows = []
    keys = ["item_kind", "item_id", "label_set"]
    labelled = votes.filter(pl.col("label_set").is_not_null())
    for key, group in labelled.sort(*keys, "rater_id").group_by(keys, maintain_order=True):
        kind, item, name = (str(part) for part in key)
        label_set = label_sets.load(name)
        shares = [_shares(label_set, vote) for vote in group.iter_rows(named=True)]
        given = np.array([row for row in shares if row is not None])
        if not len(given):
            continue
        mean = given.mean(axis=0)
        closed = mean[: len(label_set.classes)]
        total = closed.sum()
        distribution, entropy = None, None
        if total > 0:
            distribution = closed / total
            entropy = float(entropy_bits(distribution[None])[0])
        rows.append(
            {
                "item_kind": kind, "item_id": item, "label_set": label_set.name,
                "distribution": None if distribution is None else distribution.tolist(),
                "open_set_share": float(1 - total), "n_votes": len(given),
                "entropy": entropy,
                "agreement": _agreement(given), "method": METHOD,
            }
        )  # fmt: skip
    return pl.DataFrame(rows, schema=TABLES["soft_labels"].schema)


def word_frequencies(texts: pl.DataFrame) -> pl.DataFrame:
    """Return the union of open words per item, with numbers of raters.

    Args:
        texts: rows of the table ``texts``; those of the kind ``open_words`` count.

    Returns:
        ``item_kind, item_id, word, n_raters, share``; the most frequent word of an item first.
    """
    words = texts.filter(pl.col("kind") == "open_words").explode("words")
    words = words.filter(pl.col("words").is_not_null() & (pl.col("words") != ""))
    items = ["item_kind", "item_id"]
    raters = words.group_by(items).agg(pl.col("rater_id").n_unique().alias("of"))
    counted = words.group_by(*items, word="words").agg(n_raters=pl.col("rater_id").n_unique())
    joined = counted.join(raters, on=items).with_columns(share=pl.col("n_raters") / pl.col("of"))
    return joined.drop("of").sort(
        *items, "n_raters", "word", descending=[False, False, True, False]
    )


@dataclass(frozen=True)
class SpanConsensus:
    """Agreement of raters about one label over time.

    Attributes:
        times: float[n], the middle of each step in seconds.
        shares: float[n], share of the raters whose span covers it.
        spans: stretches where at least half of them agree.
        agreement: mean over pairs of raters of intersection over union; None with one rater.
    """

    times: FloatArray
    shares: FloatArray
    spans: list[tuple[float, float]]
    agreement: float | None


def span_consensus(
    spans: pl.DataFrame, *, duration_s: float, raters: int, step_s: float = 0.04
) -> dict[str, SpanConsensus]:
    """Aggregate the spans of one item by label.

    Args:
        spans: rows of the table ``spans`` of one item.
        duration_s: length of the item.
        raters: people who were asked, also those who marked nothing.
        step_s: resolution; one frame at 25 fps by default.
    """
    count = max(1, round(duration_s / step_s))
    times: FloatArray = (np.arange(count, dtype=np.float64) + 0.5) * step_s
    found = {}
    for (label,), group in spans.sort("rater_id").group_by("label", maintain_order=True):
        masks = []
        for _, own in group.group_by("rater_id", maintain_order=True):
            mask = np.zeros(count, bool)
            for start, end in own.select("start_s", "end_s").iter_rows():
                mask |= (times >= start) & (times < end)
            masks.append(mask)
        covered: FloatArray = np.array(masks, dtype=np.float64).sum(axis=0)
        shares: FloatArray = covered / max(raters, len(masks))
        masks += [np.zeros(count, bool)] * (raters - len(masks))
        found[str(label)] = SpanConsensus(
            times, shares, _stretches(shares >= 0.5, step_s, duration_s), _mean_iou(masks)
        )
    return found


@dataclass(frozen=True)
class TraceConsensus:
    """Several raters' continuous ratings of one item, as one.

    Attributes:
        times: float[n] in seconds.
        mean: float[n], the mean of the raters.
        weighted: float[n], the evaluator-weighted estimator: raters count by their correlation
            with the mean of the others (Grimm & Kroschel, 2005).
        weights: rater to weight, summing to 1.
        ccc: mean concordance correlation coefficient over pairs of raters; None with one.
    """

    times: FloatArray
    mean: FloatArray
    weighted: FloatArray
    weights: Mapping[str, float]
    ccc: float | None


def trace_consensus(
    traces: pl.DataFrame, *, step_s: float = 0.1, max_gap_s: float = 1.0
) -> TraceConsensus:
    """Aggregate the traces of one item and dimension.

    Traces of any rate are brought to one by linear interpolation, over the time that all cover.
    Where a trace has a gap, its rater does not count.

    Args:
        traces: rows of the table ``traces`` of one item and dimension.
        step_s: resolution of the result.
        max_gap_s: longer pauses between two samples are gaps.

    Raises:
        ValueError: the traces share no time.
    """
    rows = [
        (str(rater), *_clean(times, values))
        for rater, times, values in traces.sort("rater_id")
        .select("rater_id", "time_s", "value")
        .iter_rows()
    ]
    rows = [row for row in rows if len(row[1])]
    if not rows:
        raise ValueError("no trace has a sample")
    start, end = max(row[1][0] for row in rows), min(row[1][-1] for row in rows)
    if end < start:
        raise ValueError("the traces share no time")
    times = np.arange(start, end + 1e-9, step_s)
    sampled = np.array([_at(own, values, times, max_gap_s) for _, own, values in rows])
    weights = _evaluator_weights(sampled)
    names = [row[0] for row in rows]
    pairs = [ccc(a, b) for a, b in combinations(sampled, 2)]
    known = [value for value in pairs if value is not None]
    return TraceConsensus(
        times,
        _weighted_mean(sampled, np.ones(len(rows))),
        _weighted_mean(sampled, weights),
        dict(zip(names, (weights / weights.sum()).tolist(), strict=True)),
        float(np.mean(known)) if known else None,
    )


def ccc(a: FloatArray, b: FloatArray) -> float | None:
    """Return Lin's concordance correlation coefficient where both are known.

    1 for equal traces, 0 for unrelated ones; None with fewer than two common samples or where
    both are one constant. Source: Lin, 1989, doi:10.2307/2532051.
    """
    from warehouse.releases import metrics

    both = np.isfinite(a) & np.isfinite(b)
    x, y = a[both], b[both]
    if len(x) < 2 or np.ptp(np.concatenate([x, y])) == 0:
        return None
    return metrics.ccc(x, y)


def _shares(label_set: LabelSet, vote: Mapping[str, Any]) -> FloatArray | None:
    """Return a rater's shares over all answers; None without a label."""
    names = [answer.name for answer in label_set.answers]
    places = {name: place for place, name in enumerate(names)}
    places.setdefault("unknown", len(names))
    shares = np.zeros(len(places))
    if label_set.choose == "intensity":
        answers = json.loads(vote["answers"] or "{}")
        for name in label_set.classes:
            given = answers.get(f"{_LABEL}.{name}") or ["0"]
            shares[places[name]] = float(given[0])
        asked = any(key.startswith(f"{_LABEL}.") for key in answers)
        if not asked:
            return None
        if not shares.any():
            shares[places["unknown"]] = 1  # nothing of it shows
    else:
        for label in vote["labels"] or ():
            shares[places[label]] = 1
    total = shares.sum()
    return shares / total if total > 0 else None


def _agreement(given: FloatArray) -> float | None:
    pairs = [np.minimum(a, b).sum() for a, b in combinations(given, 2)]
    return float(np.mean(pairs)) if pairs else None


def _stretches(
    inside: npt.NDArray[np.bool_], step_s: float, end_s: float
) -> list[tuple[float, float]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], inside.astype(int), [0]])))
    pairs = edges.reshape(-1, 2) * step_s
    return [(round(float(a), 6), round(min(float(b), end_s), 6)) for a, b in pairs]


def _mean_iou(masks: list[npt.NDArray[np.bool_]]) -> float | None:
    values = []
    for a, b in combinations(masks, 2):
        union = (a | b).sum()
        values.append(1.0 if not union else (a & b).sum() / union)
    return float(np.mean(values)) if values else None


def _clean(times: Any, values: Any) -> tuple[FloatArray, FloatArray]:
    """Return finite samples by rising time; of equal times the last counts."""
    at, value = np.asarray(times or [], float), np.asarray(values or [], float)
    size = min(len(at), len(value))
    at, value = at[:size], value[:size]
    finite = np.isfinite(at) & np.isfinite(value)
    at, value = at[finite], value[finite]
    order = np.argsort(at, kind="stable")
    at, value = at[order], value[order]
    last = np.append(np.diff(at) > 0, True) if len(at) else np.zeros(0, bool)
    return at[last], value[last]


def _at(own: FloatArray, values: FloatArray, times: FloatArray, max_gap_s: float) -> FloatArray:
    sampled = np.interp(times, own, values)
    after = np.clip(np.searchsorted(own, times), 0, len(own) - 1)
    before = np.clip(after - 1, 0, len(own) - 1)
    gap = (own[after] - own[before] > max_gap_s) & (times > own[before]) & (times < own[after])
    sampled[gap] = np.nan
    return sampled


def _evaluator_weights(sampled: FloatArray) -> FloatArray:
    """Return each rater's correlation with the mean of the others, at least 0."""
    if len(sampled) < 3:
        return np.ones(len(sampled))
    weights = []
    for row in range(len(sampled)):
        others = _weighted_mean(np.delete(sampled, row, axis=0), np.ones(len(sampled) - 1))
        both = np.isfinite(sampled[row]) & np.isfinite(others)
        x, y = sampled[row][both], others[both]
        moves = len(x) > 1 and x.std() > 0 and y.std() > 0
        weights.append(max(0.0, float(np.corrcoef(x, y)[0, 1])) if moves else 0.0)
    return np.array(weights) if sum(weights) > 0 else np.ones(len(sampled))


def _weighted_mean(sampled: FloatArray, weights: FloatArray) -> FloatArray:
    known = np.isfinite(sampled) * weights[:, None]
    total = known.sum(axis=0)
    summed = (np.nan_to_num(sampled) * known).sum(axis=0)
    mean: FloatArray = np.divide(summed, total, out=np.full(len(total), np.nan), where=total > 0)
    return mean
