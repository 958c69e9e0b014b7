from __future__ import annotations

import numpy as np
import pytest

from synthesis.request import au_vector, check_action_units, parse_action_units
from warehouse.errors import SettingsError
from warehouse.vocabulary import ACTION_UNITS, AU_INDEX


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("AU12=0.8,AU6=C", {12: 0.8, 6: 0.5}),
        (" au4 = 1 , 15=e ", {4: 1.0, 15: 1.0}),
        ("AU12=0", {12: 0.0}),
        ("", {}),
        ("AU26=0.5,AU27=0", {26: 0.5, 27: 0.0}),
        ("AU5=0,AU43=A", {5: 0.0, 43: 0.1}),
    ],
)
def test_parse_action_units__valid(text: str, asked: dict[int, float]) -> None:
    assert parse_action_units(text) == asked


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("AU3=0.5", r"unknown: AU3\. Choose from AU1, AU2.*AU43"),
        ("AU12=1.2", r"AU12 is not in 0\.\.1"),
        ("AU12=-0.1", r"AU12 is not in 0\.\.1"),
        ("AU12=nan", r"AU12 is not in 0\.\.1"),
        ("AU12=F", "A-E"),
        ("AU12", "UNIT=INTENSITY"),
        ("smile=0.5", "UNIT=INTENSITY"),
        ("AU12=0.5,12=0.6", "twice"),
        ("AU26=0.5,AU27=0.5", "contradict"),
        ("AU43=1,AU5=A", "contradict"),
    ],
)
def test_parse_action_units__invalid(text: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        parse_action_units(text)


@pytest.mark.parametrize("value", [True, "much", None, 2])
def test_check_action_units__only_numbers(value: object) -> None:
    with pytest.raises(SettingsError, match="intensity of AU12"):
        check_action_units({12: value})  # type: ignore[dict-item]


def test_au_vector__absent_and_unknown() -> None:
    row = au_vector({12: 0.8, 6: 0})
    assert row.dtype == np.float32
    assert row.shape == (len(ACTION_UNITS),)
    assert row[AU_INDEX[12]] == np.float32(0.8)
    assert row[AU_INDEX[6]] == 0
    assert np.isnan(row).sum() == len(ACTION_UNITS) - 2
