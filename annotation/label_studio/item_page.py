"""Pages about items other than faces: typed questions as a config.

A page is a data file: the kind of item it shows and a list of questions. Every answer arrives with
the question's name, so a stored result can be read without its page (``item_answers``).
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from annotation.label_studio.labeling_config import NO_KEY, Option, linted_text
from warehouse import data_files, label_sets
from warehouse.errors import SettingsError
from warehouse.ids import sha256_of
from warehouse.label_sets import LabelSet

FOLDER = Path(__file__).parent / "pages"
ITEM_KINDS = ("clip", "segment", "picture", "video", "dialogue")
KINDS = (
    "choice", "words", "text", "number", "rating", "taxonomy", "spans", "turns", "attributes",
    "statement",
)  # fmt: skip
"""Kinds of questions. ``choice`` follows its label set: one answer, several, or an intensity."""

LABEL = "label"
"""Name of the question whose answers are the item's label."""

_KEYS = "123456789qwertyuiopasdfghjklzxcb"
"""Keys of choices in order; ``v``, ``n`` and ``m`` stay for the player."""

_STYLE = """
  .item-page { display: flex; flex-wrap: wrap; gap: 28px; align-items: flex-start; }
  .item-media { flex: 1 1 520px; max-width: 760px; }
  .item-form { flex: 1 1 380px; max-width: 640px; }
  .item-form sup { font-size: 13px; font-weight: 600; opacity: 0.6; top: 0; margin-left: 6px; }
  .item-row { display: flex; align-items: center; gap: 12px; }
  .item-row h4 { flex: 0 0 150px; margin: 0 !important; font-size: 13px; font-weight: 500; }
  .item-row .lsf-choices { margin: 0 !important; flex-wrap: nowrap; }
"""


@dataclass(frozen=True)
class Question:
    """One question of a page.

    Attributes:
        name: name of its answers in the table ``annotations``.
        kind: one of ``KINDS``.
        title: the question as asked.
        label_set: the answers of ``choice``, ``spans`` and ``turns``.
        required: an answer must be given.
        options: answers of ``taxonomy`` (``family/word``), ``attributes`` (``name: a, b``), or
            the cues that a span can have.
        low, high, step: range of ``number``; ``high`` is the number of stars of ``rating``.
    """

    name: str
    kind: str
    title: str
    label_set: str | None = None
    required: bool = False
    options: tuple[str, ...] = ()
    low: float = 0
    high: float = 5
    step: float = 1

    @property
    def answers(self) -> LabelSet:
        """The label set it asks for."""
        return label_sets.load(self.label_set or "expressions8")


@dataclass(frozen=True)
class ItemPage:
    """The questions about one kind of item.

    Attributes:
        name: name of the page; its project is called after it.
        item_kind: what a task shows, one of ``ITEM_KINDS``.
        questions: in the order asked.
        sound: play the item's sound.
        instruction: what annotators read first.
    """

    name: str
    item_kind: str
    questions: tuple[Question, ...]
    sound: bool = False
    instruction: str = ""
    predictions: bool = field(default=False, init=False)

    @property
    def label_set(self) -> str:
        """Label set of the item's label; empty if the page asks for none."""
        for question in self.questions:
            if question.name == LABEL:
                return question.answers.name
        return ""

    @property
    def media(self) -> str:
        """Name of the tag that answers point at."""
        kinds = {question.kind for question in self.questions}
        if self.item_kind == "dialogue":
            return "dialogue"
        return "statement" if "statement" in kinds else _MEDIA[self.item_kind]


_MEDIA = {"clip": "video", "segment": "video", "video": "video", "picture": "picture"}


def names() -> tuple[str, ...]:
    """Return the names of the shipped pages."""
    return data_files.names(FOLDER)


@cache
def load(name: str) -> ItemPage:
    """Return a shipped page, or that of a ``.toml`` file.

    Raises:
        SettingsError: there is no such page, or its file is unsound.
    """
    path = data_files.find(FOLDER, name, what="page")
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        page = _parse(data)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _unsound(path, f"cannot be read: {error}") from error
    for fault in _faults(page):
        raise _unsound(path, fault)
    return page


def span_sets(
    page_names: Iterable[str], *, item_kind: str, label_set: str | None
) -> dict[str, str]:
    """Return question to label set of the spans that pages ask about a kind.

    Args:
        page_names: pages in use; the first that asks a question decides.
        label_set: of the page's label, as stored with a vote.
    """
    found: dict[str, str] = {}
    for page in map(load, page_names):
        if page.item_kind == item_kind and (page.label_set or None) == label_set:
            for question in page.questions:
                if question.kind in ("spans", "turns"):
                    found.setdefault(question.name, question.answers.name)
    return found


def item_config(page: ItemPage) -> str:
    """Return the labeling config (XML) of a project that asks ``page``.

    Raises:
        StudioError: two controls share a name or two choices a key.
    """
    root = ElementTree.Element("View", className="item-page")
    ElementTree.SubElement(root, "Style").text = _STYLE
    _add_media(ElementTree.SubElement(root, "View", className="item-media"), page)
    form = ElementTree.SubElement(root, "View", className="item-form")
    keys = iter(_KEYS)
    for question in page.questions:
        _ADD[question.kind](form, page, question, keys)
    return linted_text(root, hint="correct the page")


def item_fingerprint(page: ItemPage) -> str:
    """Return 12 hex digits that identify the questions and what is shown."""
    return sha256_of([item_config(page).encode()])[:12]


def _add_media(column: ElementTree.Element, page: ItemPage) -> None:
    add = ElementTree.SubElement
    kinds = {question.kind for question in page.questions}
    if page.item_kind == "dialogue":
        add(
            column, "Paragraphs", name="dialogue", value="$turns", layout="dialogue",
            nameKey="speaker", textKey="text", contextScroll="true",
        )  # fmt: skip
        return
    if page.item_kind == "picture":
        add(column, "Image", name="picture", value="$picture", zoom="true", width="560px")
    else:
        add(column, "Video", name="video", value="$video", framerate="$fps", height="360",
            timelineHeight="64")  # fmt: skip
    if page.sound:
        add(column, "Audio", name="sound", value="$sound", hotkey="space")
    if page.item_kind == "segment":
        add(column, "Header", value="$transcript", size="6")
    if "statement" in kinds:
        add(column, "Text", name="statement", value="$statement")


Keys = Iterator[str]


def _choice(form: ElementTree.Element, page: ItemPage, question: Question, keys: Keys) -> None:
    answers = question.answers
    _header(form, question)
    if answers.choose == "intensity":
        for answer in answers.classes:
            row = ElementTree.SubElement(form, "View", className="item-row")
            ElementTree.SubElement(row, "Header", value=_shown(answer), size="6")
            levels = [Option(str(level), str(level), NO_KEY) for level in answers.levels]
            _choices(row, f"{question.name}.{answer}", page.media, levels)
        return
    options = [Option(answer, _shown(answer), next(keys, NO_KEY)) for answer in answers.classes]
    options.append(Option("unknown", "None of these / cannot tell", next(keys, NO_KEY)))
    _choices(
        form, question.name, page.media, options, required=question.required,
        choice="multiple" if answers.choose == "several" else "single-radio",
    )  # fmt: skip


def _words(form: ElementTree.Element, page: ItemPage, question: Question, _: Keys) -> None:
    _header(form, question)
    _text_area(form, page, question, rows="1", maxSubmissions="8", skipDuplicates="true")


def _text(form: ElementTree.Element, page: ItemPage, question: Question, _: Keys) -> None:
    _header(form, question)
    _text_area(form, page, question, rows="4", maxSubmissions="1")


def _number(form: ElementTree.Element, page: ItemPage, question: Question, _: Keys) -> None:
    _header(form, question)
    ElementTree.SubElement(
        form, "Number", name=question.name, toName=page.media, slider="true",
        min=f"{question.low:g}", max=f"{question.high:g}", step=f"{question.step:g}",
        required=_bool(question.required),
    )  # fmt: skip


def _rating(form: ElementTree.Element, page: ItemPage, question: Question, _: Keys) -> None:
    _header(form, question)
    ElementTree.SubElement(
        form, "Rating", name=question.name, toName=page.media, maxRating=f"{question.high:g}",
        required=_bool(question.required),
    )  # fmt: skip


def _taxonomy(form: ElementTree.Element, page: ItemPage, question: Question, _: Keys) -> None:
    _header(form, question)
    control = ElementTree.SubElement(
        form, "Taxonomy", name=question.name, toName=page.media, leafsOnly="true",
        required=_bool(question.required),
    )  # fmt: skip
    families: dict[str, ElementTree.Element] = {}
    for option in question.options:
        family, _slash, word = option.partition("/")
        if family not in families:
            families[family] = ElementTree.SubElement(control, "Choice", value=family)
        ElementTree.SubElement(families[family], "Choice", value=word or family)


def _spans(form: ElementTree.Element, page: ItemPage, question: Question, keys: Keys) -> None:
    _header(form, question)
    tag = "Labels" if page.sound else "TimelineLabels"
    target = "sound" if page.sound else page.media
    control = ElementTree.SubElement(
        form, tag, name=question.name, toName=target, required=_bool(question.required)
    )
    for answer in question.answers.classes:
        ElementTree.SubElement(
            control, "Label", value=_shown(answer), alias=answer, hotkey=next(keys, NO_KEY)
        )
    if question.options:
        cues = [Option(cue, _shown(cue), NO_KEY) for cue in question.options]
        _choices(form, f"{question.name}.cues", target, cues, choice="multiple", perRegion="true")


def _turns(form: ElementTree.Element, page: ItemPage, question: Question, keys: Keys) -> None:
    _header(form, question)
    control = ElementTree.SubElement(
        form, "ParagraphLabels", name=question.name, toName=page.media,
        required=_bool(question.required),
    )  # fmt: skip
    for answer in question.answers.classes:
        ElementTree.SubElement(
            control, "Label", value=_shown(answer), alias=answer, hotkey=next(keys, NO_KEY)
        )


def _attributes(form: ElementTree.Element, page: ItemPage, question: Question, _: Keys) -> None:
    _header(form, question)
    for option in question.options:
        attribute, _colon, values = option.partition(":")
        row = ElementTree.SubElement(form, "View", className="item-row")
        ElementTree.SubElement(row, "Header", value=_shown(attribute.strip()), size="6")
        options = [Option(v.strip(), _shown(v.strip()), NO_KEY) for v in values.split(",")]
        _choices(row, f"{question.name}.{attribute.strip()}", page.media, options)


def _statement(form: ElementTree.Element, page: ItemPage, question: Question, keys: Keys) -> None:
    _header(form, question)
    judged = ("correct", "incorrect", "cannot_tell")
    options = [Option(answer, _shown(answer), next(keys, NO_KEY)) for answer in judged]
    _choices(form, question.name, page.media, options, required=question.required)


_ADD = {
    "choice": _choice, "words": _words, "text": _text, "number": _number, "rating": _rating,
    "taxonomy": _taxonomy, "spans": _spans, "turns": _turns, "attributes": _attributes,
    "statement": _statement,
}  # fmt: skip


def _header(form: ElementTree.Element, question: Question) -> None:
    text = question.title if question.required else f"{question.title} (optional)"
    ElementTree.SubElement(form, "Header", value=text, size="5")


def _text_area(
    form: ElementTree.Element, page: ItemPage, question: Question, **attributes: Any
) -> None:
    ElementTree.SubElement(
        form, "TextArea", name=question.name, toName=page.media, editable="true",
        required=_bool(question.required), placeholder=question.title, **attributes,
    )  # fmt: skip


def _choices(
    form: ElementTree.Element,
    name: str,
    target: str,
    options: list[Option],
    *,
    choice: str = "single-radio",
    required: bool = False,
    **attributes: Any,
) -> None:
    control = ElementTree.SubElement(
        form, "Choices", name=name, toName=target, choice=choice, showInline="true",
        required=_bool(required), **attributes,
    )  # fmt: skip
    for option in options:
        ElementTree.SubElement(
            control, "Choice", value=option.text, alias=option.alias, hotkey=option.key
        )


def _shown(answer: str) -> str:
    return answer.replace("_", " ").replace("+", " and ").capitalize()


def _bool(value: bool) -> str:
    return "true" if value else "false"


def _parse(data: dict[str, Any]) -> ItemPage:
    questions = tuple(
        Question(**{**row, "options": tuple(row.get("options", ()))})
        for row in data.get("questions", ())
    )
    return ItemPage(
        name=str(data["name"]),
        item_kind=str(data["item_kind"]),
        questions=questions,
        sound=bool(data.get("sound", False)),
        instruction=str(data.get("instruction", "")),
    )


def _faults(page: ItemPage) -> Iterator[str]:
    """Yield what contradicts itself in a page."""
    if page.item_kind not in ITEM_KINDS:
        yield f"asks about {page.item_kind!r}; use one of {', '.join(ITEM_KINDS)}"
    if not page.questions:
        yield "asks nothing"
    taken = [question.name for question in page.questions]
    for name in sorted({name for name in taken if taken.count(name) > 1}):
        yield f"has two questions named {name!r}"
    for question in page.questions:
        if question.kind not in KINDS:
            yield f"asks a {question.kind!r}; use one of {', '.join(KINDS)}"
        if not question.name.isidentifier():
            yield f"names a question {question.name!r}; use letters, digits and _"
        if question.kind in ("choice", "spans", "turns"):
            label_sets.load(question.label_set or "expressions8")
        if question.kind in ("taxonomy", "attributes") and not question.options:
            yield f"gives no options for {question.name!r}"
        if question.kind == "number" and not question.low < question.high:
            yield f"gives {question.name!r} no range: {question.low:g} to {question.high:g}"
        if question.kind == "turns" and page.item_kind != "dialogue":
            yield "asks about turns, which only a dialogue has"


def _unsound(path: Path, fault: str) -> SettingsError:
    return data_files.unsound(path, fault, what="page")
