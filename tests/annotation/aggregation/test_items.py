"""Aggregation of answers about items: choices, words, spans, traces."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import polars as pl
import pytest

from annotation.aggregation import items
from warehouse.storage.schema import TABLES


def votes(*rows: tuple[str, Any], label_set: str = "basic7") -> pl.DataFrame:
    """Votes about one segment: rater and labels, or answers as a mapping."""
    return pl.DataFrame(
        [
            {
                "item_kind": "segment", "item_id": "s", "label_set": label_set, "rater_id": rater,
                "labels": given if isinstance(given, list) else None,
                "answers": json.dumps(given) if isinstance(given, dict) else None,
            }
            for rater, given in rows
        ],
        schema_overrides={"labels": pl.List(pl.String), "answers": pl.String},
    )  # fmt: skip


def test_choices__each_rater_counts_one() -> None:
    found = items.item_soft_labels(
        votes(("a", ["happiness"]), ("b", ["happiness", "surprise"]), ("c", ["unknown"]))
    )
    assert found.schema == TABLES["soft_labels"].schema
    (row,) = found.iter_rows(named=True)
    np.testing.assert_allclose(row["distribution"], [0, 0.75, 0.25, 0, 0, 0, 0])
    assert (row["n_votes"], row["open_set_share"]) == (3, pytest.approx(1 / 3))
    assert row["agreement"] == pytest.approx((0.5 + 0 + 0) / 3)
    assert row["entropy"] == pytest.approx(0.811278)
    assert (row["face_id"], row["expression"], row["label_set"]) == (None, None, "basic7")


def test_choices__all_open_has_no_distribution() -> None:
    (row,) = items.item_soft_labels(votes(("a", ["unknown"]))).iter_rows(named=True)
    assert (row["distribution"], row["open_set_share"], row["entropy"]) == (None, 1.0, None)
    assert row["agreement"] is None


def test_choices__intensities_by_their_share() -> None:
    given = {"label.joy": ["3"], "label.trust": ["1"], "label.fear": ["0"]}
    rows = votes(("a", given), ("b", {"label.joy": ["0"]}), label_set="plutchik8")
    (row,) = items.item_soft_labels(rows).iter_rows(named=True)
    np.testing.assert_allclose(row["distribution"], [0.75, 0, 0, 0, 0, 0, 0, 0.25])
    assert row["open_set_share"] == pytest.approx(0.5)


def test_words__union_with_shares() -> None:
    texts = pl.DataFrame(
        [
            {"item_kind": "segment", "item_id": "s", "kind": "open_words", "rater_id": rater,
             "words": words}
            for rater, words in (("a", ["uneasy", "tired"]), ("b", ["uneasy"]), ("c", []))
        ]
    )  # fmt: skip
    found = items.word_frequencies(texts)
    assert found.select("word", "n_raters", "share").rows() == [
        ("uneasy", 2, 1.0), ("tired", 1, 0.5)
    ]  # fmt: skip


def test_spans__shares_consensus_and_agreement() -> None:
    spans = pl.DataFrame(
        [("a", "present", 1.0, 3.0), ("b", "present", 2.0, 4.0)],
        schema=["rater_id", "label", "start_s", "end_s"],
        orient="row",
    )
    found = items.span_consensus(spans, duration_s=10.0, raters=2, step_s=0.1)["present"]
    assert found.spans == [(1.0, 4.0)]
    assert found.agreement == pytest.approx(1 / 3)
    assert found.shares[25] == 1.0
    of_three = items.span_consensus(spans, duration_s=10.0, raters=3, step_s=0.1)["present"]
    assert of_three.spans == [(2.0, 3.0)]
    assert of_three.agreement == pytest.approx(1 / 9)


def traces(*rows: tuple[str, list[float], list[float]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=["rater_id", "time_s", "value"], orient="row")


def test_traces__other_rates_one_time() -> None:
    slow = [0.0, 1.0, 2.0, 3.0]
    fast = [index / 10 for index in range(31)]
    found = items.trace_consensus(
        traces(("a", slow, [0, 1, 2, 3]), ("b", fast, [t + 1 for t in fast])), step_s=0.5
    )
    np.testing.assert_allclose(found.mean, [0.5, 1, 1.5, 2, 2.5, 3, 3.5])
    assert found.ccc == pytest.approx(2 / 3)  # variance 1 each, means 1 apart


def test_traces__a_rater_who_moves_against_all_counts_nothing() -> None:
    times = [index / 10 for index in range(50)]
    wave = np.sin(times)
    found = items.trace_consensus(
        traces(*((name, times, list(wave)) for name in "abc"), ("d", times, list(-wave)))
    )
    assert found.weights == {**dict.fromkeys("abc", pytest.approx(1 / 3)), "d": 0.0}
    np.testing.assert_allclose(found.weighted, wave, atol=1e-9)


def test_traces__gaps_and_bad_samples_do_not_count() -> None:
    found = items.trace_consensus(
        traces(
            ("a", [0.0, 0.5, 3.0, 3.5], [0.0, 0, 0, 0]),
            ("b", [0.0, 1, 2, 3, 3.5, 3.2], [1.0, 1, float("nan"), 1, 1, 1]),
        ),
        step_s=0.5,
        max_gap_s=2.0,
    )
    np.testing.assert_allclose(found.mean, [0.5, 0.5, 1, 1, 1, 1, 0.5, 0.5])


@pytest.mark.parametrize("given", [[], [("a", [], [])], [("a", [0.0], [1]), ("b", [5.0], [1])]])
def test_traces__without_common_time(given: list[Any]) -> None:
    frame = pl.DataFrame(
        given, schema={"rater_id": pl.String, "time_s": pl.List(pl.Float64),
                       "value": pl.List(pl.Float64)}, orient="row",
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"no trace has a sample|share no time"):
        items.trace_consensus(frame)


def test_ccc__hand_checked() -> None:
    a, b = np.array([1.0, 2, 3]), np.array([2.0, 3, 4])
    assert items.ccc(a, a) == pytest.approx(1.0)
    assert items.ccc(a, b) == pytest.approx(2 * (2 / 3) / (2 / 3 + 2 / 3 + 1))
    assert items.ccc(a, np.array([np.nan, np.nan, 1])) is None
