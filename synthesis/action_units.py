"""Action units as people write them, checked, and as the network reads them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from warehouse.errors import SettingsError
from warehouse.vocabulary import ACTION_UNITS, AU_INDEX, INTENSITY

CONTRADICTIONS = ((26, 27), (43, 5))
"""Pairs that one face cannot show at once: FACS scores a dropped or a stretched jaw, and a closed
eye has no raised lid."""


def parse(text: str) -> dict[int, float]:
    """``AU12=0.8, AU6=C`` to ``{12: 0.8, 6: 0.5}``, checked; an empty text asks for nothing.

    Raises:
        SettingsError: a part cannot be read, a unit comes twice, or ``check`` refuses it.
    """
    asked: dict[int, float] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = (word.strip() for word in part.partition("="))
        unit = name.upper().removeprefix("AU")
        if not equals or not unit.isdecimal():
            raise SettingsError(
                "action units such as AU12=0.8,AU6=C", got=repr(part), hint="write UNIT=INTENSITY"
            )
        if int(unit) in asked:
            raise SettingsError(f"AU{unit} once", got=f"it twice in {text!r}", hint="drop one")
        asked[int(unit)] = _intensity(value, unit=int(unit))
    return check(asked)


def check(au: Mapping[int, float]) -> dict[int, float]:
    """The same units with plain numbers, when they are known, in range and possible together.

    Args:
        au: FACS number to intensity in 0..1; 0 asks for the unit's absence.

    Raises:
        SettingsError: an unknown unit (the known ones are listed), an intensity out of range, or
            two units that contradict each other.
    """
    for unit, value in au.items():
        if unit not in AU_INDEX:
            known = ", ".join(each.code for each in ACTION_UNITS)
            raise SettingsError(f"one of {known}", got=f"AU{unit}", hint="leave it out")
        if isinstance(value, bool) or not _within(value):
            raise SettingsError(
                f"an intensity of AU{unit} in 0..1 or A-E", got=repr(value), hint="rescale it"
            )
    for one, other in CONTRADICTIONS:
        if au.get(one, 0) > 0 and au.get(other, 0) > 0:
            raise SettingsError(
                f"AU{one} or AU{other}", got="both", hint="no face shows both: leave one out"
            )
    return {int(unit): float(value) for unit, value in au.items()}


def vector(au: Mapping[int, float]) -> np.ndarray:
    """float32[K] in the order of ``vocabulary.ACTION_UNITS``; NaN = unknown, 0 = absent.

    Raises:
        SettingsError: see ``check``.
    """
    row = np.full(len(ACTION_UNITS), np.nan, dtype=np.float32)
    for unit, value in check(au).items():
        row[AU_INDEX[unit]] = value
    return row


def _within(value: object) -> bool:
    try:
        return 0 <= float(value) <= 1  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False


def _intensity(text: str, *, unit: int) -> float:
    if text.upper() in INTENSITY:
        return INTENSITY[text.upper()]
    try:
        return float(text)
    except ValueError as error:
        raise SettingsError(
            f"an intensity of AU{unit} in 0..1 or A-E", got=repr(text), hint="write AU12=0.8"
        ) from error
