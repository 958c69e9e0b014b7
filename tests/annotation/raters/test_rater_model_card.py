from __future__ import annotations

from typing import Any

import pytest

from annotation.raters.onnx_rater import SHIPPED, read_card, weights_of
from annotation.raters.training.model_card import card
from warehouse.errors import ModelError

FIGURES = "# Machine raters on FER+ valid\n\nthe figures"


@pytest.fixture(scope="module")
def served() -> dict[str, dict[str, Any]]:
    return {name: read_card(weights_of(name)) for name in SHIPPED}


def benchmark_of(served: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {
        name: {"rater_id": f"machine-{one['model']}-{one['sha256'][:8]}"}
        for name, one in served.items()
    }


def failures_of(served: dict[str, dict[str, Any]]) -> str:
    ids = ", ".join(one["rater_id"] for one in benchmark_of(served).values())
    return f"Looked at: {ids}\n\n- a mouth behind a hand"


def test_card__numbers_come_from_the_files(served: dict[str, dict[str, Any]]) -> None:
    text = card(served, benchmark_of(served), figures=FIGURES, failures=failures_of(served))
    for one in served.values():
        assert f"{one['trained_on']['learned']} images" in text
        assert one["sha256"] in text
    assert "## FER+ valid\n\nthe figures" in text
    assert "a mouth behind a hand" in text
    assert "AU6 cheek raiser" in text
    assert "research use" in text
    assert "must not be used" in text


def test_card__benchmark_of_other_weights(served: dict[str, dict[str, Any]]) -> None:
    other = {**benchmark_of(served), "judge": {"rater_id": "machine-other-00000000"}}
    with pytest.raises(ModelError, match="The benchmark did not measure machine-"):
        card(served, other, figures=FIGURES, failures=failures_of(served))


def test_card__failures_of_other_weights(served: dict[str, dict[str, Any]]) -> None:
    with pytest.raises(ModelError, match="The review is not about machine-"):
        card(served, benchmark_of(served), figures=FIGURES, failures="Looked at: others\n")


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_card__is_about_the_shipped_weights(name: str) -> None:
    weights = weights_of(name)
    text = (weights.parent / "MODEL_CARD.md").read_text()
    assert read_card(weights)["sha256"] in text


def test_shipped_raters__trained_on_different_halves(
    served: dict[str, dict[str, Any]],
) -> None:
    one, two = served["guide"], served["judge"]
    assert (one["trained_on"]["part"], two["trained_on"]["part"]) == ("1/2", "2/2")
    assert one["trained_on"]["rule"] == two["trained_on"]["rule"]
    assert one["shape"]["architecture"] != two["shape"]["architecture"]
    assert one["recipe"]["seed"] != two["recipe"]["seed"]
