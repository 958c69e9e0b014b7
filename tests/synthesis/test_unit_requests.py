from __future__ import annotations

import numpy as np
import pytest

from synthesis import action_units
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
def test_a_request_is_read(text: str, asked: dict[int, float]) -> None:
    assert action_units.parse(text) == asked


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("AU3=0.5", r"AU1, AU2.*AU43.*got AU3"),
        ("AU12=1.2", r"AU12 in 0\.\.1"),
        ("AU12=-0.1", r"AU12 in 0\.\.1"),
        ("AU12=nan", r"AU12 in 0\.\.1"),
        ("AU12=F", "A-E"),
        ("AU12", "UNIT=INTENSITY"),
        ("smile=0.5", "UNIT=INTENSITY"),
        ("AU12=0.5,12=0.6", "twice"),
        ("AU26=0.5,AU27=0.5", "both"),
        ("AU43=1,AU5=A", "both"),
    ],
)
def test_a_request_that_cannot_be_met_is_refused(text: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        action_units.parse(text)


@pytest.mark.parametrize("value", [True, "much", None, 2])
def test_only_numbers_are_intensities(value: object) -> None:
    with pytest.raises(SettingsError, match="intensity of AU12"):
        action_units.check({12: value})  # type: ignore[dict-item]


def test_absent_and_unknown_are_two_things() -> None:
    row = action_units.vector({12: 0.8, 6: 0})
    assert row.dtype == np.float32
    assert row.shape == (len(ACTION_UNITS),)
    assert row[AU_INDEX[12]] == np.float32(0.8)
    assert row[AU_INDEX[6]] == 0
    assert np.isnan(row).sum() == len(ACTION_UNITS) - 2
