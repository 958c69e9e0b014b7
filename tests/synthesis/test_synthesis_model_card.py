from __future__ import annotations

from typing import Any

import pytest

from synthesis.training.model_card import card
from warehouse.errors import ModelError

SHA = "ab" * 32
RECORD: dict[str, Any] = {
    "tier": "XS3", "taught": [12, 4], "learned": 25515, "held_out": 508, "steps": 10,
    "faces_seen": 640, "minutes": 1.5, "cpus": 2, "device": "cpu", "precision": "fp32",
    "threads": 2, "date": "2026-01-01", "guide": "machine-a", "held_loss": 0.1, "bytes": 17_000_000,
    "recipe": {"batch": 64, "guide_weight": 0.1, "guide_share": 0.125},
    "sha256": {"conditioner/x.safetensors": "00", "unet/x.safetensors": SHA},
}  # fmt: skip
REVIEW = f"Looked at: {SHA[:8]}\n\nSmiles on the left."


def test_card__units_figures_and_review() -> None:
    text = card(RECORD, {"weights": SHA}, figures="# Synthesis\n\nr 0.4", review=REVIEW)
    supported, unsupported = text.split("**Unsupported**")
    assert "AU12 lip corner puller" in supported
    assert "AU6 cheek raiser" in unsupported
    assert "## Synthesis\n\nr 0.4" in text
    assert "Smiles on the left." in text
    assert "research use" in text
    assert SHA in text


@pytest.mark.parametrize(
    ("benchmark", "review", "wanted"),
    [
        ({"weights": "cd" * 32}, REVIEW, "did not measure abababab"),
        ({}, REVIEW, "did not measure"),
        ({"weights": SHA}, "Looked at: cdcdcdcd", "The review is not about"),
    ],
)
def test_card__other_weights(benchmark: dict[str, Any], review: str, wanted: str) -> None:
    with pytest.raises(ModelError, match=wanted):
        card(RECORD, benchmark, figures="# x", review=review)
