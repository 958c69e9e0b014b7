"""Pseudo labels from the requested label and the raters."""

from __future__ import annotations

import numpy as np
import pytest

from synthesis.pseudo_labels import Reading, check_independent, mean_known, missed, rectify
from synthesis.request import au_vector
from warehouse.errors import ModelError, SettingsError
from warehouse.vocabulary import AU_INDEX, EXPRESSIONS

K = len(AU_INDEX)
NONE = np.full(8, np.nan)


def sees(share: float, name: str = "happiness", other: str = "neutral") -> np.ndarray:
    row = np.zeros(8)
    row[EXPRESSIONS.index(name)], row[EXPRESSIONS.index(other)] = share, 1 - share
    return row


def asks(name: str | None) -> np.ndarray:
    return NONE if name is None else np.eye(8)[EXPRESSIONS.index(name)]


def reading(*rows: np.ndarray, au: dict[int, float] | None = None, **more: object) -> Reading:
    values = np.stack([au_vector(au or {})] * len(rows))
    return Reading("machine-b", np.stack(rows), values, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("asked", "seen", "action", "reason", "label"),
    [
        ("happiness", sees(0.8), "kept", None, sees(0.7 + 0.3 * 0.8)),
        ("anger", sees(0.8), "relabelled", "expression: asked anger, seen happiness", sees(0.8)),
        ("anger", np.full(8, 1 / 8), "dropped", "unsure: neutral 0.12", np.full(8, 1 / 8)),
        (None, sees(0.8), "kept", None, sees(0.8)),
        (None, np.full(8, 1 / 8), "dropped", "unsure: neutral 0.12", np.full(8, 1 / 8)),
    ],
    ids=["agrees", "disagrees", "unsure", "nothing asked", "nothing asked, unsure"],
)
def test_rectify__rule(
    asked: str | None, seen: np.ndarray, action: str, reason: str | None, label: np.ndarray
) -> None:
    found = rectify(asks(asked)[None], np.full((1, K), np.nan), [reading(seen)]).row(0, named=True)
    assert (found["action"], found["reason"]) == (action, reason)
    np.testing.assert_allclose(found["soft_label"], label, atol=1e-6)


def test_rectify__averages_raters() -> None:
    au = np.full((1, K), np.nan)
    one, two = reading(sees(0.9, "anger", "fear")), reading(sees(0.3, "anger", "fear"))
    found = rectify(asks("anger")[None], au, [one, two]).row(0, named=True)
    assert found["action"] == "kept"
    np.testing.assert_allclose(found["soft_label"], sees(0.7 + 0.3 * 0.6, "anger", "fear"))


def test_rectify__uses_plurality() -> None:
    shares = np.array([[0.1, 0.45, 0.1, 0.1, 0.1, 0.05, 0.05, 0.05]])
    sure = shares**4 / (shares**4).sum()
    au, asked = np.full((1, K), np.nan), asks("happiness")[None]
    modest = Reading("b", shares, au)
    assert rectify(asked, au, [modest])["action"].to_list() == ["dropped"]
    given = Reading("b", shares, au, plurality=sure)
    found = rectify(asked, au, [given]).row(0, named=True)
    assert found["action"] == "kept"
    np.testing.assert_allclose(found["soft_label"], 0.7 * asked[0] + 0.3 * shares[0], rtol=1e-5)


def test_rectify__unseen_unit() -> None:
    asked = au_vector({12: 0.8, 26: 0.1, 4: 0.0, 11: 0.9})[None]
    seen = reading(sees(0.9), au={12: 0.05, 26: 0.0, 4: 0.7})
    found = rectify(asks("happiness")[None], asked, [seen]).row(0, named=True)
    assert found["action"] == "relabelled"
    assert found["reason"] == "au: AU12 asked 0.80, seen 0.05"
    assert found["measured_au"][AU_INDEX[4]] == pytest.approx(0.7)
    assert np.isnan(found["measured_au"][AU_INDEX[11]])


@pytest.mark.parametrize(
    ("asked", "seen", "count"),
    [(0.8, 0.13, 0), (0.8, 0.12, 1), (0.2, 0.0, 0), (0.25, 0.0, 1), (0.8, np.nan, 0)],
)
def test_missed__thresholds(asked: float, seen: float, count: int) -> None:
    one, two = au_vector({12: asked}), np.full(K, np.nan)
    two[AU_INDEX[12]] = seen
    assert len(missed(one, two)) == count


def test_rectify__not_a_face() -> None:
    au, asked = np.full((3, K), np.nan), np.stack([asks("happiness")] * 3)
    seen = reading(*[sees(0.9)] * 3, not_a_face=np.array([0.6, 0.1, 0.1]))
    found = rectify(asked, au, [seen], faceless=np.array([False, True, False]))
    assert found["action"].to_list() == ["dropped", "dropped", "kept"]
    assert found["reason"].to_list() == [
        "not_a_face: say the raters", "not_a_face: none is found", None,
    ]  # fmt: skip


def test_rectify__no_faces() -> None:
    empty = Reading("b", np.zeros((0, 8)), np.zeros((0, K)))
    none = rectify(np.zeros((0, 8)), np.zeros((0, K)), [empty])
    one = rectify(asks(None)[None], np.full((1, K), np.nan), [reading(sees(0.9))])
    assert none.height == 0
    assert none.schema == one.schema


@pytest.mark.parametrize(
    ("readings", "said"),
    [
        ([], "no ratings"),
        ([Reading("b", np.full((1, 8), np.nan), np.zeros((1, K)))], "distributions as expression"),
        ([Reading("b", np.ones((1, 8)), np.zeros((1, K)))], "distributions as expression"),
        ([Reading("b", np.eye(8)[:2], np.zeros((2, K)))], "1 distributions"),
    ],
    ids=["no rater", "NaN", "sums to 8", "another n"],
)
def test_rectify__invalid_readings(readings: list[Reading], said: str) -> None:
    with pytest.raises(ModelError, match=said):
        rectify(asks(None)[None], np.full((1, K), np.nan), readings)


def test_mean_known__nan() -> None:
    found = mean_known([np.array([[1.0, np.nan, np.nan]]), np.array([[0.0, 0.5, np.nan]])])
    np.testing.assert_array_equal(found, [[0.5, 0.5, np.nan]])


def test_check_independent__guide_among_raters() -> None:
    check_independent(None, ["a"])
    check_independent("a", ["b", "c"])
    with pytest.raises(SettingsError, match="guided the faces"):
        check_independent("a", ["b", "a"])
