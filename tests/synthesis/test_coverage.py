"""Coverage gaps of a set of faces, counted by hand, and requests for them."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from synthesis import coverage
from synthesis.coverage import Wanted
from synthesis.request import au_vector, check_action_units
from warehouse.vocabulary import AU_INDEX, EXPRESSIONS, PROTOTYPES

FEW = Wanted(least=2)
SUPPORTED = [1, 2, 4, 5, 7, 10, 12, 14, 15, 16, 17, 18, 20, 22, 25, 26, 28, 43]


def three_faces() -> pl.DataFrame:
    """Two smiles and one unlabelled face; AU17 is unmeasured."""
    label = np.full((3, 8), np.nan)
    label[0], label[1] = np.eye(8)[1], [0.5, 0.5, 0, 0, 0, 0, 0, 0]
    au = np.stack([au_vector({6: 0.5, 12: 0.9}), au_vector({12: 0.25, 6: 0.24})] * 2)[:3]
    au = np.nan_to_num(au, nan=0.0)
    au[:, AU_INDEX[17]], au[1:, AU_INDEX[4]] = np.nan, np.nan
    return coverage.gaps(label, au, np.array([0.0, -40.0, np.nan]), wanted=FEW, supported=SUPPORTED)


@pytest.mark.parametrize(
    ("kind", "name", "have", "missing", "can"),
    [
        ("expression", "happiness", 1.5, 0.5, True),
        ("expression", "neutral", 0.5, 1.5, True),
        ("expression", "fear", 0.0, 2.0, True),
        ("unit", "AU12", 3.0, 0.0, True),
        ("unit", "AU6", 2.0, 0.0, False),
        ("unit", "AU4", 0.0, 2.0, True),
        ("unit", "AU17", None, 0.0, True),
        ("pair", "AU4+AU17", None, 0.0, True),
        ("pair", "AU6+AU12", 2.0, 0.0, False),
        ("pair", "AU1+AU4", 0.0, 2.0, True),
        ("pose", "frontal", 1.0, 1.0, False),
        ("pose", "turned", 0.0, 2.0, False),
        ("pose", "far turned", 1.0, 1.0, False),
    ],
)
def test_gaps__by_hand(kind: str, name: str, have: float | None, missing: float, can: bool) -> None:
    row = three_faces().row(by_predicate=(pl.col("kind") == kind) & (pl.col("name") == name),
                            named=True)  # fmt: skip
    assert (row["have"], row["missing"], row["can_be_made"]) == (have, missing, can)


def test_gaps__targets_grow_with_faces() -> None:
    n = 1000
    found = coverage.gaps(np.full((n, 8), 1 / 8), np.ones((n, 24)), np.zeros(n))
    wanted = dict(found.group_by("kind").agg(pl.col("wanted").first()).iter_rows())
    assert wanted == {"expression": 62.5, "unit": 50.0, "pair": 20.0, "pose": 100.0}


def test_gaps__no_faces() -> None:
    found = coverage.gaps(np.zeros((0, 8)), np.zeros((0, 24)), np.zeros(0))
    assert (found["missing"] == found["wanted"]).all()
    assert found["missing"].min() > 0  # type: ignore[operator]


def test_meaningful_pairs__possible() -> None:
    pairs = coverage.meaningful_pairs()
    assert (6, 12) in pairs
    assert (5, 43) not in pairs
    assert (26, 27) not in pairs
    for a, b in pairs:
        check_action_units({a: 1.0, b: 1.0})


def test_counts__diagonal() -> None:
    au = np.stack([au_vector({6: 0.5, 12: 0.9}), au_vector({12: 0.25})])
    table = coverage.counts(au)
    assert table[AU_INDEX[12], AU_INDEX[12]] == 2
    assert table[AU_INDEX[6], AU_INDEX[12]] == table[AU_INDEX[12], AU_INDEX[6]] == 1
    assert table.sum() == 2 + 1 + 2


@pytest.mark.parametrize("n", [0, 1, 7, 24, 100])
def test_plan__size(n: int) -> None:
    lacking = three_faces()
    asked = coverage.plan(lacking, n, supported=SUPPORTED)
    makeable = lacking.filter(pl.col("can_be_made"))
    most = sum(int(np.ceil(missing)) for missing in makeable["missing"])
    assert asked.height == min(n, most)
    named = asked.group_by("gap").len().with_columns(name=pl.col("gap").str.split(":").list.get(1))
    joined = named.join(makeable, on="name")
    assert joined.height == named.height
    assert (joined["len"] <= joined["missing"].ceil()).all()
    assert asked.select("gap", "number").is_duplicated().sum() == 0
    assert asked["seed"].n_unique() == asked.height


def test_plan__requests_are_valid() -> None:
    for row in coverage.plan(three_faces(), 500, supported=SUPPORTED).iter_rows(named=True):
        au = {pair["unit"]: pair["intensity"] for pair in row["au"]}
        assert check_action_units(au) == au
        assert set(au) <= set(SUPPORTED)
        assert row["expression"] is None or row["expression"] in EXPRESSIONS
        assert au or row["expression"]


def test_plan__prototype_strengths() -> None:
    known = set(PROTOTYPES["fear"])
    three = [coverage.request("expression", "fear", number, known) for number in range(3)]
    assert all(set(au) == known for au, _ in three)
    assert len({au[4] for au, _ in three}) == 3
    mild = coverage.request("expression", "contempt", 1, {12, 14})
    assert mild == ({12: 0.1, 14: 0.1}, "contempt")


def test_plan__gaps_are_independent() -> None:
    """Otherwise one new vote would change every planned face."""
    before = three_faces()
    after = before.with_columns(
        missing=pl.when(pl.col("name") == "fear").then(0.0).otherwise("missing")
    )
    one, two = (coverage.plan(lacking, 40, supported=SUPPORTED) for lacking in (before, after))
    key = ["gap", "number"]
    both = one.join(two, on=key)
    assert both.height > 20
    assert (both["seed"] == both["seed_right"]).all()
    assert (both["au"] == both["au_right"]).all()
    assert not two["gap"].str.contains("fear").any()
