from __future__ import annotations

import pytest

from annotation.raters.card import card
from annotation.raters.machine import read_card, weights_of
from warehouse.errors import ModelError


def test_card_takes_its_numbers_from_the_files() -> None:
    served = read_card(weights_of("default"))
    rater_id = f"machine-{served['model']}-{served['sha256'][:8]}"
    text = card(served, {"rater_id": rater_id}, "# Machine rater on FER+ valid\n\nthe figures")
    assert f"learned from | {served['trained_on']['learned']} images" in text
    assert "## FER+ valid\n\nthe figures" in text
    assert "AU6 cheek raiser" in text
    assert "research use" in text
    assert "must not be used" in text


def test_card_refuses_figures_of_other_weights() -> None:
    with pytest.raises(ModelError, match="a benchmark of machine-"):
        card(read_card(weights_of("default")), {"rater_id": "machine-other-00000000"}, "")


def test_the_shipped_card_speaks_of_the_shipped_weights() -> None:
    weights = weights_of("default")
    assert read_card(weights)["sha256"] in (weights.parent / "MODEL_CARD.md").read_text()
