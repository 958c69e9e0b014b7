from __future__ import annotations

import pytest

from warehouse.vocabulary import (
    ACTION_UNITS,
    ANSWERS,
    AU_INDEX,
    COMPOUNDS,
    EXPRESSIONS,
    INTENSITY,
    PROTOTYPES,
    canonical,
)


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("happy", "happiness"),
        (" Happiness ", "happiness"),
        ("ANGRY", "anger"),
        ("not a face", "not_a_face"),
        ("nf", "not_a_face"),
        ("no-face", "not_a_face"),
        ("no face", "not_a_face"),
        ("None", "unknown"),
        ("natural", "neutral"),
        ("überraschung", "surprise"),
        *[(answer, answer) for answer in ANSWERS],
    ],
)
def test_expression__synonyms(label: str, name: str) -> None:
    assert canonical(label) == name


@pytest.mark.parametrize("label", ["", "bored", "happyy", "0"])
def test_expression__unknown(label: str) -> None:
    with pytest.raises(KeyError, match=r"neutral.*contempt"):
        canonical(label)


def test_expressions__fer_plus_order() -> None:
    order = "neutral happiness surprise sadness anger disgust fear contempt"
    assert " ".join(EXPRESSIONS) == order


def test_action_units__unique_index() -> None:
    assert [AU_INDEX[unit.number] for unit in ACTION_UNITS] == list(range(len(ACTION_UNITS)))
    assert ACTION_UNITS[AU_INDEX[12]].code == "AU12"
    assert ACTION_UNITS[AU_INDEX[12]].name == "lip corner puller"


def test_prototypes__known_units() -> None:
    assert tuple(PROTOTYPES) == EXPRESSIONS
    for asked in PROTOTYPES.values():
        assert set(asked) <= set(AU_INDEX)
        assert all(value is None or value in INTENSITY.values() for value in asked.values())


@pytest.mark.parametrize("name", sorted(COMPOUNDS))
def test_compounds__known_names(name: str) -> None:
    compound = COMPOUNDS[name]
    assert set(compound.parts) <= set(EXPRESSIONS)
    assert len(compound.parts) == 2
    assert {*compound.units, *compound.variants} <= set(AU_INDEX)
    assert not set(compound.units) & set(compound.variants)
    # The source lists a unit as a variant only when 20 to 70 % of the posers showed it.
    assert all(0.2 <= share <= 0.7 for share in compound.variants.values())
