"""Label sets: shipped files, words, published orders, maps, unsound files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from warehouse import label_sets
from warehouse.errors import SettingsError
from warehouse.vocabulary import EXPRESSIONS, OPEN_SET


@pytest.mark.parametrize("name", label_sets.names())
def test_shipped__maps_name_answers_of_the_other_set(name: str) -> None:
    label_set = label_sets.load(name)
    for other_name in label_set.maps:
        other = label_sets.load(other_name)
        targets = set(label_set.map_to(other).values()) - {""}
        assert targets <= {answer.name for answer in other.answers}
        assert targets & set(other.classes)


def test_shipped__expressions_are_those_of_the_tables() -> None:
    label_set = label_sets.load("expressions8")
    assert label_set.classes == EXPRESSIONS
    assert label_set.open_set == OPEN_SET
    assert label_sets.load("expressions") == label_set


@pytest.mark.parametrize(
    ("name", "order", "numbers"),
    [
        ("basic7", "affectnet7", "neutral happiness sadness surprise fear disgust anger"),
        ("basic7", "raf", "surprise fear disgust happiness sadness anger neutral"),
        ("basic7", "fer2013", "anger disgust fear happiness sadness surprise neutral"),
        ("basic7", "ferv39k", "anger disgust fear happiness neutral sadness surprise"),
        ("basic7", "dfew", "happiness sadness neutral anger surprise disgust fear"),
        ("basic7", "meld", "neutral surprise fear sadness happiness disgust anger"),
        ("mer6", "mer", "happiness anger sadness neutral worry surprise"),
        ("micro3", "megc", "negative positive surprise"),
    ],
)  # fmt: skip
def test_orders__are_the_published_ones(name: str, order: str, numbers: str) -> None:
    found = label_sets.load(name).orders[order]
    assert list(found.numbers) == numbers.split()
    assert min(found.numbers.values()) == (1 if order in ("raf", "dfew") else 0)


@pytest.mark.parametrize(
    ("name", "word", "answer"),
    [
        ("expressions8", " Happy ", "happiness"),
        ("expressions8", "NF", "not_a_face"),
        ("basic7", "Überraschung", "surprise"),
        ("basic7", "U\u0308berraschung", "surprise"),
        ("mer6", "担心", "worry"),
        ("compound7", "Fearfully_Surprised", "fear+surprise"),
        ("sentiment7", "-3", "highly_negative"),
    ],
)
def test_canonical__reads_synonyms_and_translations(name: str, word: str, answer: str) -> None:
    assert label_sets.load(name).canonical(word) == answer


def test_canonical__names_the_answers_of_an_unknown_word() -> None:
    with pytest.raises(KeyError, match="confusion, fatigue, distraction"):
        label_sets.load("academic5").canonical("anger")


def test_map_distribution__sums_merged_answers_and_counts_what_is_lost() -> None:
    full, basic, coarse = map(label_sets.load, ("expressions8", "basic7", "coarse4"))
    shares = [0.1, 0.2, 0.1, 0.1, 0.1, 0.1, 0.1, 0.2]
    mapped, open_share, lost = full.map_distribution(shares, basic)
    np.testing.assert_allclose(mapped, np.array(shares[:7]) / 0.8)
    assert (open_share, lost) == (0, pytest.approx(0.2))
    mapped, open_share, lost = full.map_distribution(shares, coarse)
    np.testing.assert_allclose(mapped, [0.1, 0.2, 0.6, 0.1])
    assert (open_share, lost) == (0, 0)


def test_map_to__refuses_an_undeclared_map() -> None:
    with pytest.raises(SettingsError, match="label set academic5 is declared: basic6"):
        label_sets.load("academic5").map_to(label_sets.load("basic6"))


OWN = """
name = "own"
question = "What?"
answers = ["calm", "tense"]
[imports.expressions8]
neutral = "calm"
fear = "tense"
"""


def test_read__a_set_of_ones_own_maps_from_a_shipped_one(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(OWN, encoding="utf-8")
    own = label_sets.load(str(path))
    assert own.classes == ("calm", "tense")
    mapped, _, lost = label_sets.load("expressions8").map_distribution(
        [0.3, 0, 0, 0.4, 0, 0, 0.3, 0], own
    )
    np.testing.assert_allclose(mapped, [0.5, 0.5])
    assert lost == pytest.approx(0.4)


HEAD = 'name = "a"\nquestion = "?"\n'
ONE = HEAD + 'answers = ["x"]\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name = ", "cannot be read"),
        (HEAD, "lacks answers"),
        (HEAD + 'answers = ["x", "x"]', "two answers of one name"),
        (HEAD + 'answers = ["x", "X "]', "the word 'x' to 'x' and to 'X '"),
        ('name = "a b"\nquestion = "?"\nanswers = ["x"]', "use letters, digits and _"),
        (ONE + 'chose = "one"', "unknown fields: chose"),
        (ONE + 'choose = "intensity"', "needs levels"),
        (ONE + '[maps.basic6]\ny = "fear"', "unknown answers in maps.basic6: y"),
        (ONE + '[orders.o]\nwords = {y = "y"}', "unknown answers in orders.o: y"),
        (HEAD + 'answers = [3]', "shape of a label set"),
    ],
)  # fmt: skip
def test_read__names_what_is_unsound(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "set.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError, match="A label set is unsound: set") as caught:
        label_sets.read(path)
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["nothing", "../basic7", "warehouse/errors.py", ""])
def test_load__names_the_sets_there_are(name: str) -> None:
    with pytest.raises(SettingsError, match="Use one of academic5, ambivalence"):
        label_sets.load(name)
