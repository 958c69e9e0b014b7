"""Convert an annotation about an item to columns of ``annotations``.

The stored result is read without its page: each part carries the name of its question and the
kind of its answer. ``answers`` is JSON, question to answer:

- choices, taxonomy, words: a list of texts
- text: a text; number and rating: a number
- spans: ``{label, start_s, end_s, cues}``; turns: ``{label, turn, start, end}``
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from annotation.label_studio.answers import storable, words
from annotation.label_studio.item_page import LABEL
from warehouse import label_sets
from warehouse.errors import SettingsError

SPAN_QUESTION, CUES = "spans", ".cues"

_AUTHORS = {"machine": "machine", "simulated": "machine", "source": "source"}
"""Kind of rater to kind of author; every other rater is a person."""


def item_columns(
    result: object, data: Mapping[str, Any], *, was_cancelled: bool = False
) -> dict[str, Any]:
    """Return the columns of ``annotations`` for a result; never raises.

    Args:
        result: as the server stores it.
        data: the task's data: ``item_kind, item_id, label_set`` and, for spans on frames,
            ``fps`` and ``duration_s``.

    Returns:
        ``item_kind, item_id, label_set, labels, answers`` and ``answer``, whose note names what
        could not be read. Labels outside the label set are no labels.
    """
    parsed = _Parsed(data)
    stored = storable(result)
    for part in stored if isinstance(stored, list) else [stored]:
        try:
            parsed.add(part)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError):
            parsed.faults.append("a part is no answer to any question")
    answers = parsed.answers()
    labels = parsed.labels(answers)
    if not answers and not was_cancelled and not parsed.faults:
        parsed.faults.append("no answer")
    note = f"malformed: {', '.join(parsed.faults[:3])}" if parsed.faults else None
    return {
        "item_kind": _text(data.get("item_kind")),
        "item_id": _text(data.get("item_id")),
        "label_set": _text(data.get("label_set")) or None,
        "labels": labels,
        "answers": json.dumps(answers, sort_keys=True, ensure_ascii=False) if answers else None,
        "answer": {
            "validity": None, "expressions": [], "confidence": None, "valence": None,
            "arousal": None, "note": note,
        },
    }  # fmt: skip


def item_result(answers: Mapping[str, Any], data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the result that the page stores for answers.

    Args:
        answers: question to answer, as in the column ``answers``.
        data: the task's data; with ``sound`` spans are in seconds, else in frames of ``fps``.
    """
    return [part for name, value in answers.items() for part in _parts(name, value, data)]


def texts_of(vote: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield rows of ``texts`` for a vote; open words are one row."""
    answers = json.loads(vote["answers"] or "{}")
    common = {
        "item_kind": vote["item_kind"], "item_id": vote["item_id"], "rater_id": vote["rater_id"],
        "author_kind": _AUTHORS.get(vote["rater_kind"], "person"),
        "language": None, "position": 0,
    }  # fmt: skip
    for name, value in sorted(answers.items()):
        if isinstance(value, str):
            yield common | {"kind": name, "text": value, "words": None}
        elif name == "words":
            said = [label_sets.fold(word) for word in value]
            yield common | {"kind": "open_words", "text": None, "words": said}


def spans_of(
    vote: Mapping[str, Any], sets: Mapping[str, str] | None = None
) -> Iterator[dict[str, Any]]:
    """Yield rows of ``spans`` for a vote.

    Args:
        sets: question to its label set (``item_page.span_sets``); else the question's name.
    """
    answers = json.loads(vote["answers"] or "{}")
    position = 0
    for name, value in sorted(answers.items()):
        for span in value if isinstance(value, list) else ():
            if isinstance(span, dict) and "start_s" in span:
                yield {
                    "item_kind": vote["item_kind"], "item_id": vote["item_id"],
                    "label_set": (sets or {}).get(name, name), "label": span["label"],
                    "start_s": span["start_s"],
                    "end_s": span["end_s"], "cues": span["cues"], "rater_id": vote["rater_id"],
                    "rater_kind": vote["rater_kind"], "position": position,
                }  # fmt: skip
                position += 1


class _Parsed:
    """The parts of a result read so far."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        self.data = data
        self.given: dict[str, Any] = {}
        self.regions: dict[str, dict[str, Any]] = {}
        self.faults: list[str] = []

    def add(self, part: Mapping[str, Any]) -> None:
        name, kind, value = str(part["from_name"]), str(part["type"]), part["value"]
        if name.endswith(CUES):
            region = self.regions.setdefault(str(part["id"]), {"name": name.removesuffix(CUES)})
            region["cues"] = words(value["choices"])
        elif kind == "choices":
            self.given[name] = words(value["choices"])
        elif kind == "taxonomy":
            self.given[name] = ["/".join(words(path)) for path in value["taxonomy"]]
        elif kind == "textarea":
            said = [word.strip() for word in words(value["text"]) if word.strip()]
            if said:
                self.given[name] = said if name == "words" else "\n".join(said)
        elif kind in ("number", "rating"):
            number = value[kind]
            if isinstance(number, bool) or not isinstance(number, int | float):
                raise TypeError
            if not math.isfinite(number):
                raise ValueError
            self.given[name] = float(number)
        elif kind in ("timelinelabels", "labels", "paragraphlabels"):
            self._add_region(name, kind, part)
        else:
            self.faults.append(f"{kind!r} is no kind of answer of ours")

    def _add_region(self, name: str, kind: str, part: Mapping[str, Any]) -> None:
        value = part["value"]
        region = self.regions.setdefault(str(part["id"]), {"name": name})
        region["name"], region["label"] = name, words(value[kind])[0]
        if kind == "paragraphlabels":
            region |= {"turn": int(value["start"]), "start": int(value.get("startOffset", 0)),
                       "end": int(value.get("endOffset", 0))}  # fmt: skip
            return
        if kind == "timelinelabels":
            fps = float(self.data.get("fps") or 0)
            first, last = value["ranges"][0]["start"], value["ranges"][0]["end"]
            if not fps > 0:
                raise ValueError
            # Frames count from 1; a span of one frame lasts one frame.
            start, end = (float(first) - 1) / fps, float(last) / fps
        else:
            start, end = float(value["start"]), float(value["end"])
        longest = float(self.data.get("duration_s") or math.inf)
        start, end = max(0.0, start), min(end, longest)
        if not start < end:
            self.faults.append(f"a span from {start:g} to {end:g} s")
            del self.regions[str(part["id"])]
            return
        region |= {"start_s": round(start, 6), "end_s": round(end, 6)}

    def answers(self) -> dict[str, Any]:
        found = dict(self.given)
        for region in self.regions.values():
            if "label" not in region:
                self.faults.append("cues without a span")
                continue
            name = region["name"]
            fields = {key: value for key, value in region.items() if key != "name"}
            if "turn" not in fields:
                fields.setdefault("cues", [])
            found.setdefault(name, []).append(fields)
        for value in found.values():
            if value and isinstance(value, list) and isinstance(value[0], dict):
                value.sort(key=lambda one: (one.get("start_s", one.get("turn")), one["label"]))
        return found

    def labels(self, answers: dict[str, Any]) -> list[str] | None:
        """Return the item's labels, checked against the label set of its page."""
        name = _text(self.data.get("label_set"))
        given = answers.get(LABEL)
        if not name or not isinstance(given, list):
            return None
        try:
            label_set = label_sets.load(name)
        except SettingsError:
            return sorted(set(given))  # a set of the user's own that is not here
        known = {answer.name for answer in label_set.answers} | {"unknown"}
        strange = sorted({label for label in given if label not in known})
        self.faults += [f"{label!r} is no answer of {name}" for label in strange]
        return None if strange else sorted(set(given))


def _parts(name: str, value: Any, data: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    target = "dialogue" if data.get("item_kind") == "dialogue" else _target(data)

    def part(kind: str, inner: dict[str, Any], to: str = target, **more: Any) -> dict[str, Any]:
        return {"from_name": name, "to_name": to, "type": kind, "value": inner, **more}

    if isinstance(value, float | int):
        kind = "rating" if name == "sure" else "number"
        yield part(kind, {kind: value})
    elif isinstance(value, str):
        yield part("textarea", {"text": [value]})
    elif name == "words":
        yield part("textarea", {"text": list(value)})
    elif value and isinstance(value[0], dict):
        for number, span in enumerate(value):
            region = f"{name}-{number}"
            if "turn" in span:
                inner = {"start": str(span["turn"]), "end": str(span["turn"]),
                         "startOffset": span["start"], "endOffset": span["end"],
                         "paragraphlabels": [span["label"]]}  # fmt: skip
                yield part("paragraphlabels", inner, id=region)
                continue
            yield from _span_parts(part, span, region, data)
    elif value and "/" in value[0]:
        yield part("taxonomy", {"taxonomy": [path.split("/") for path in value]})
    else:
        yield part("choices", {"choices": list(value)})


def _span_parts(part: Any, span: Any, region: str, data: Mapping[str, Any]) -> Iterator[Any]:
    if data.get("sound"):
        times: dict[str, Any] = {"start": span["start_s"], "end": span["end_s"]}
        made = part("labels", times | {"labels": [span["label"]]}, "sound", id=region)
    else:
        fps = float(data["fps"])
        frames = {"start": round(span["start_s"] * fps) + 1, "end": round(span["end_s"] * fps)}
        inner = {"ranges": [frames], "timelinelabels": [span["label"]]}
        times, made = {"ranges": [frames]}, part("timelinelabels", inner, id=region)
    yield made
    if span.get("cues"):
        cues = part("choices", times | {"choices": span["cues"]}, made["to_name"], id=region)
        yield cues | {"from_name": made["from_name"] + CUES}


def _target(data: Mapping[str, Any]) -> str:
    shown = ("statement", "picture")
    return next((name for name in shown if data.get(name)), "video")


def _text(value: object) -> str | None:
    return storable(value) if isinstance(value, str) else None
