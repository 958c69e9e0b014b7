"""Degenerate vote tables in every audit that reads votes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from annotation import aggregation, audit
from warehouse.errors import TableError
from warehouse.vocabulary import EXPRESSIONS

N = 10
SHOWN = [EXPRESSIONS[face % 3] for face in range(N)]
"""What ten faces show."""


def table(*rows: tuple[int, str, str]) -> pl.DataFrame:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    return pl.DataFrame(
        [
            (f"f{face}", rater, label, start + timedelta(seconds=face))
            for face, rater, label in rows
        ],
        schema=["face_id", "rater_id", "label", "updated_at"],
        orient="row",
    )


def by(*raters: str) -> list[tuple[int, str, str]]:
    return [(face, rater, SHOWN[face]) for rater in raters for face in range(N)]


def machine(labels: list[str]) -> np.ndarray:
    belief = np.full((len(labels), 8), 0.02)
    belief[np.arange(len(labels)), [EXPRESSIONS.index(label) for label in labels]] = 0.86
    return belief


DEGENERATE = {
    "one rater": by("a"),
    "a rater who voted once": [*by("a", "b"), (0, "once", SHOWN[0])],
    "every vote twice": by("a", "b", "a", "b"),
    "ten faces, three raters": by("a", "b", "c"),
    "one class": [(face, rater, "fear") for rater in "ab" for face in range(N)],
    "all votes equal but one": [*by("a", "b", "c")[:-1], (N - 1, "c", "contempt")],
}


@pytest.mark.parametrize("votes", DEGENERATE.values(), ids=DEGENERATE.keys())
def test_audits__flag_nothing_in_degenerate_votes(votes: list[tuple[int, str, str]]) -> None:
    frame = table(*votes)
    labels = aggregation.soft_labels(frame)
    plurality = [EXPRESSIONS[int(np.argmax(row))] for row in labels["expression"].to_list()]
    drift = audit.run("rater_drift", votes=frame)
    assert set(drift.statistics["drift"]) == set(frame["rater_id"])
    assert [drift.statistics[name] for name in ("drifting", "hasty", "monotone")] == [[], [], []]
    noise = audit.run(
        "label_noise",
        labels=labels,
        probabilities=machine(plurality),
        votes=frame,
        out_of_sample=True,
    )
    assert noise.rows["face_id"].to_list() == labels["face_id"].to_list()
    assert noise.rows["score"].is_between(0.5, 1).all()
    assert not noise.rows["flag"].any()
    opened = audit.run("open_set", labels=labels)
    assert opened.rows["score"].to_list() == [1.0] * N


def test_audits__repeated_votes_count_once() -> None:
    once, twice = table(*by("a", "b", "c")), table(*by("a", "b", "c"), *by("a", "b", "c"))
    assert aggregation.soft_labels(twice).equals(aggregation.soft_labels(once))
    assert aggregation.rater_quality(twice).equals(aggregation.rater_quality(once))
    drift = [audit.run("rater_drift", votes=votes).statistics for votes in (once, twice)]
    assert drift[0] == drift[1]


def test_open_set__uses_votes_without_machine_rater() -> None:
    frame = table(*by("a", "b"), *((face, "c", "unknown") for face in range(N)))
    labels = aggregation.soft_labels(frame)
    opened = audit.run("open_set", labels=labels)
    assert opened.rows["score"].to_list() == pytest.approx([2 / 3] * N)
    assert opened.statistics["evidence"] == "people"
    assert aggregation.soft_labels(frame, "dirichlet_mixture").height == N
    assert aggregation.uncertainty(frame)["more_votes"].min() >= 0


@pytest.mark.parametrize("name", ["rater_drift", "label_noise"])
@pytest.mark.parametrize("label", ["bored", "", "7"])
def test_audits__name_labels_outside_vocabulary(name: str, label: str) -> None:
    votes = table(*by("a", "b"), (0, "c", label))
    inputs = {"labels": SHOWN, "probabilities": machine(SHOWN), "out_of_sample": True}
    with pytest.raises(TableError, match=repr(label)):
        audit.run(name, votes=votes, **(inputs if name == "label_noise" else {}))


def test_audits__reject_nan_features() -> None:
    features = np.random.default_rng(0).normal(size=(N, 4))
    features[3, 2] = np.nan
    faces = pl.DataFrame(
        {"face_id": [f"f{face}" for face in range(N)], "feature": features.tolist()}
    )
    for name, given in (
        ("label_noise", {"labels": SHOWN, "features": features}),
        ("open_set", {"features": features}),
        ("near_duplicates", {"faces": faces}),
    ):
        with pytest.raises(TableError, match="NaN or infinity"):
            audit.run(name, **given)
