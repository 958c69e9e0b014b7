"""Parts of a model card that raters and face generator share."""

from __future__ import annotations

from collections.abc import Iterable

from warehouse.errors import ModelError
from warehouse.vocabulary import ACTION_UNITS


def check_same_weights(
    weights: str,
    *,
    measured: object,
    review: str,
    hints: tuple[str, str],
    short: str = "",
) -> None:
    """Refuse a benchmark or a review of other weights.

    Args:
        weights: identifier of the weights that the card is about.
        measured: identifier in the benchmark's results.
        review: text that begins with ``Looked at: <identifiers>``.
        hints: how to run the benchmark, and how to write the review.
        short: identifier that the review uses, if it is not ``weights``.

    Raises:
        ModelError: one of them is about other weights.
    """
    if measured != weights:
        raise ModelError(
            f"The benchmark did not measure {weights}", got=f"it measured {measured}", hint=hints[0]
        )
    first = review.partition("\n")[0]
    if (short or weights) not in first:
        raise ModelError(f"The review is not about {weights}", got=first, hint=hints[1])


def table(columns: dict[str, dict[str, str]]) -> list[str]:
    """Write a Markdown table of columns with the same rows."""
    first = next(iter(columns.values()))
    return [
        "| | " + " | ".join(columns) + " |",
        "|---" * (len(columns) + 1) + "|",
        *(f"| {row} | " + " | ".join(c[row] for c in columns.values()) + " |" for row in first),
    ]


def unit_names(units: Iterable[int]) -> str:
    """List action units by code and name."""
    names = {unit.number: unit.name for unit in ACTION_UNITS}
    return ", ".join(f"AU{unit} {names[unit]}" for unit in units) or "none"
