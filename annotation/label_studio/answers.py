"""Convert an annotation's result to columns of ``annotations`` and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from annotation.label_studio.labeling_config import (
    COMPOUND,
    CONFIDENCE,
    LABEL_SETS,
    MOOD_SCALE,
    MOODS,
    UNIT_OF_CONTROL,
    VALIDITY,
    control_of,
)
from warehouse.vocabulary import AU_INDEX, EXPRESSIONS, INTENSITY

_CLOSED_BY = {"not_a_face": ["not_a_face"], "unusable": ["unknown"]}
"""Expressions of an answer that ended at the first question."""

_VALIDITY = tuple(option.alias for option in VALIDITY)
_CONFIDENCE = tuple(option.alias for option in CONFIDENCE)
_COMPOUND = tuple(option.alias for option in COMPOUND)
_LABELS = {name: tuple(o.alias for o in options) for name, options in LABEL_SETS.items()}
_LABELS["expressions"] += _COMPOUND
_LEVELS = {"0": 0.0, **INTENSITY}
_LETTERS = {value: letter for letter, value in _LEVELS.items()}
_ORDER = (*EXPRESSIONS, "unknown", "not_a_face")


def columns_of(
    result: object, *, label_set: str = "expressions", was_cancelled: bool = False
) -> dict[str, Any]:
    """Return the columns of ``annotations`` for a stored result; never raises.

    A result that does not fit the labeling config (written by another tool, or after the config
    was edited by hand) gets no expressions, so it is no vote, and a note with the fault. A skip
    keeps what had been picked before it.

    Returns:
        ``answer`` (validity, expressions, confidence, valence and arousal in [-1, 1], note),
        ``label_set``, ``labels`` (of a label set other than the expressions), ``compounds``,
        ``free_label`` and ``au`` (unit, intensity in [0, 1]); null where not answered.
    """
    parsed = _ParsedResult(label_set)
    stored = storable(result)
    regions: list[Any] = stored if isinstance(stored, list) else [stored]
    for region in regions:
        try:
            parsed.add(region["from_name"], region["value"])
        except (KeyError, TypeError):
            parsed.faults.append("a part is no answer to any question")
    return parsed.columns(was_cancelled=was_cancelled)


def storable(value: Any) -> Any:
    """Return JSON without lone UTF-16 surrogates, which no table can hold."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, list):
        return [storable(one) for one in value]
    if isinstance(value, dict):
        return {storable(name): storable(one) for name, one in value.items()}
    return value


def result_of(
    expressions: Sequence[str],
    *,
    validity: str = "face",
    confidence: str | None = None,
    mood: Mapping[str, float] | None = None,
    au: Mapping[int, float] | None = None,
    free_label: str | None = None,
) -> list[dict[str, Any]]:
    """Return the result that the page stores for an answer.

    Args:
        expressions: canonical names, compounds (``happiness+surprise``), or labels of another set.
        mood: ``valence`` and ``arousal`` in [-1, 1].
        au: FACS number to intensity, one of 0, .1, .25, .5, .8, 1.
    """
    picked: dict[str, Sequence[str]] = {
        "validity": [validity],
        "expression": expressions if validity == "face" else [],
        "confidence": [confidence] if confidence else [],
    }
    picked |= {control_of(unit): [_LETTERS[level]] for unit, level in (au or {}).items()}
    regions = [_region(name, "choices", list(given)) for name, given in picked.items() if given]
    regions += [
        _region(name, "number", round(MOOD_SCALE * value)) for name, value in (mood or {}).items()
    ]
    return regions + ([_region("free_label", "text", [free_label])] if free_label else [])


def _region(name: str, kind: str, value: object) -> dict[str, Any]:
    tag = "textarea" if kind == "text" else kind
    return {"from_name": name, "to_name": "crop", "type": tag, "value": {kind: value}}


@dataclass
class _ParsedResult:
    """The regions of a result parsed so far."""

    label_set: str
    picked: dict[str, list[str]] = field(default_factory=dict)
    moods: dict[str, float] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    units: dict[int, float] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    """Stored in notes: a changed text would make a new event of an old annotation."""

    def add(self, name: str, value: Mapping[str, Any]) -> None:
        known: dict[str, tuple[str, ...]] = {
            "validity": _VALIDITY,
            "expression": _LABELS.get(self.label_set, ()),
            "confidence": _CONFIDENCE,
        }
        if name in known:
            self.picked[name] = self._among(name, known[name], value)
        elif name in UNIT_OF_CONTROL:
            for letter in self._among(name, tuple(_LEVELS), value)[:1]:
                self.units[UNIT_OF_CONTROL[name]] = _LEVELS.get(letter, 0.0)
        elif name in MOODS:
            self.moods[name] = self._mood(name, value["number"])
        elif name in ("note", "free_label"):
            self.texts[name] = "\n".join(words(value["text"]))
        else:
            self.faults.append(f"{name!r} is no question of ours")

    def columns(self, *, was_cancelled: bool) -> dict[str, Any]:
        validity = next(iter(self.picked.get("validity", [])), None)
        given = _CLOSED_BY.get(validity or "", self.picked.get("expression", []))
        if not given and not was_cancelled and not self.faults:
            self.faults.append("no expression")
        note = self.texts.get("note") or None
        if self.faults:
            note = "; ".join(filter(None, ["malformed: " + ", ".join(self.faults[:3]), note]))
            given = []
        if self.faults or validity in _CLOSED_BY:
            # The page stores what was picked before the rater answered that there is no face.
            self.moods, self.units = {}, {}
        own = self.label_set == "expressions"
        return {
            "answer": {
                "validity": validity,
                "expressions": _parts(given) if own else [],
                "confidence": next(iter(self.picked.get("confidence", [])), None),
                "valence": self.moods.get("valence"),
                "arousal": self.moods.get("arousal"),
                "note": note,
            },
            "label_set": self.label_set,
            "labels": None if own else sorted(set(given)),
            "compounds": [name for name in _COMPOUND if name in given] or None,
            "free_label": self.texts.get("free_label") or None,
            "au": [
                {"unit": unit, "intensity": self.units[unit]}
                for unit in sorted(self.units, key=lambda number: AU_INDEX[number])
            ]
            or None,
        }

    def _among(self, name: str, aliases: tuple[str, ...], value: Mapping[str, Any]) -> list[str]:
        given = words(value["choices"])
        self.faults += [f"{word!r} is no {name}" for word in given if word not in aliases]
        return given

    def _mood(self, name: str, number: object) -> float:
        fits = isinstance(number, int | float) and not isinstance(number, bool)
        if not fits or not abs(float(number)) <= MOOD_SCALE:  # type: ignore[arg-type]
            self.faults.append(f"{number!r} is no {name}")
            return 0.0
        return float(number) / MOOD_SCALE  # type: ignore[arg-type]


def words(value: object) -> list[str]:
    """Return a text or a list of texts as a list.

    Raises:
        TypeError: it is something else.
    """
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not all(isinstance(item, str) for item in values):
        raise TypeError
    return values


def _parts(given: Sequence[str]) -> list[str]:
    parts = {part for name in given for part in name.split("+")}
    return sorted(parts, key=_ORDER.index)
