"""An annotation's result as the project's answer, and an answer as a result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from annotation.studio.config import CONFIDENCE, EXPRESSION, VALIDITY

_ALIASES = {
    "validity": tuple(option.alias for option in VALIDITY),
    "expression": tuple(option.alias for option in EXPRESSION),
    "confidence": tuple(option.alias for option in CONFIDENCE),
}
_CLOSED_BY = {"not_a_face": ["not_a_face"], "unusable": ["unknown"]}
"""What an answer means when the rater stopped at the first question."""


def answer_of(result: object, *, was_cancelled: bool = False) -> dict[str, Any]:
    """The ANSWER struct behind a stored result; never raises.

    A result that does not fit the labeling config (another tool wrote it, or the config was
    changed by hand) has no expressions, so it is no vote, and a note that says what was wrong.
    A skip keeps what had been picked before it.
    """
    picked: dict[str, list[str]] = {}
    note, faults = None, []
    regions: list[Any] = result if isinstance(result, list) else [result]
    for region in regions:
        try:
            name, value = region["from_name"], region["value"]
            if name in _ALIASES:
                picked[name] = _choices(value["choices"])
                faults += [
                    f"{choice!r} is no {name}"
                    for choice in picked[name]
                    if choice not in _ALIASES[name]
                ]
            elif name == "note":
                note = "\n".join(_choices(value["text"])) or None
            else:
                faults.append(f"{name!r} is no question of ours")
        except (KeyError, TypeError):
            faults.append("a part is no answer to any question")
    validity = next(iter(picked.get("validity", [])), None)
    expressions = _CLOSED_BY.get(validity or "", picked.get("expression", []))
    if not expressions and not was_cancelled and not faults:
        faults.append("no expression")
    if faults:
        note = "; ".join(filter(None, ["malformed: " + ", ".join(faults[:3]), note]))
    return {
        "validity": validity,
        "expressions": [] if faults else _in_order(expressions),
        "confidence": next(iter(picked.get("confidence", [])), None),
        "valence": None,
        "arousal": None,
        "note": note,
    }


def result_of(
    expressions: Sequence[str], *, validity: str = "face", confidence: str | None = None
) -> list[dict[str, Any]]:
    """What the page would store for an answer; ``expressions`` are canonical names."""
    given: Mapping[str, Sequence[str]] = {
        "validity": [validity],
        "expression": expressions if validity == "face" else [],
        "confidence": [confidence] if confidence else [],
    }
    return [
        {
            "from_name": name,
            "to_name": "crop",
            "type": "choices",
            "value": {"choices": list(choices)},
        }
        for name, choices in given.items()
        if choices
    ]


def _choices(value: object) -> list[str]:
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not all(isinstance(item, str) for item in values):
        raise TypeError
    return values


def _in_order(expressions: Sequence[str]) -> list[str]:
    order = [*_ALIASES["expression"], "not_a_face"]
    return sorted(set(expressions), key=order.index)
