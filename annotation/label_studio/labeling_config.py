"""Generate the labeling config of a project.

One face, few questions, few keys.

The server stores the alias of a choice. Aliases are the project's canonical names, so the words
on the page may change without touching a vote.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

from warehouse.errors import SettingsError, StudioError
from warehouse.ids import sha256_of
from warehouse.vocabulary import ACTION_UNITS, AU_INDEX, EXPRESSIONS, INTENSITY


@dataclass(frozen=True)
class Option:
    """One choice: stored alias, text on the page, and key."""

    alias: str
    text: str
    key: str
    selected: bool = False


VALIDITY = (
    Option("face", "Yes, one face", "f", selected=True),
    Option("not_a_face", "Not a face", "n"),
    Option("unusable", "A face, but too poor to judge", "u"),
)
EXPRESSION = (
    *(Option(name, name.capitalize(), str(key)) for key, name in enumerate(EXPRESSIONS, start=1)),
    Option("unknown", "None of these / cannot tell", "9"),
)
COARSE = (
    Option("neutral", "Neutral", "1"),
    Option("positive", "Positive", "2"),
    Option("negative", "Negative", "3"),
    Option("surprise", "Surprise", "4"),
    Option("unknown", "None of these / cannot tell", "9"),
)
"""Four classes: those of composite micro-expression data sets (MEGC 2019), plus neutral."""

CONFIDENCE = (
    Option("guess", "A guess", "q"),
    Option("likely", "Likely", "w"),
    Option("sure", "Sure", "e"),
)
COMPOUND = (
    Option("happiness+surprise", "Happily surprised", "t"),
    Option("happiness+disgust", "Happily disgusted", "y"),
    Option("sadness+fear", "Sadly fearful", "o"),
    Option("sadness+anger", "Sadly angry", "p"),
    Option("surprise+sadness", "Sadly surprised", "a"),
    Option("sadness+disgust", "Sadly disgusted", "s"),
    Option("anger+fear", "Fearfully angry", "d"),
    Option("surprise+fear", "Fearfully surprised", "g"),
    Option("disgust+fear", "Fearfully disgusted", "z"),
    Option("surprise+anger", "Angrily surprised", "x"),
    Option("anger+disgust", "Angrily disgusted", "c"),
    Option("surprise+disgust", "Disgustedly surprised", "b"),
)
"""The pairs of Du, Tao and Martinez, 2014 (doi:10.1073/pnas.1322355111). A compound counts as
both of its parts."""

LABEL_SETS = {"expressions": EXPRESSION, "coarse": COARSE}
"""Label sets by name. Only ``expressions`` makes votes and soft labels."""

MOODS = ("valence", "arousal")
MOOD_SCALE = 100
"""Sliders of the page run from -100 to 100; tables hold -1 to 1."""

NO_KEY = "f24"
"""A key that no keyboard has. The page gives a choice without a key any free letter."""

LEVELS = (
    Option("0", "0", NO_KEY),
    *(Option(letter, letter, NO_KEY) for letter in INTENSITY),
)
"""Answers about an action unit: absent, or one of the FACS intensity letters."""


@dataclass(frozen=True)
class Page:
    """The questions of a project, which never change during its life.

    Attributes:
        label_set: a key of ``LABEL_SETS``.
        mood: ask for valence and arousal.
        units: FACS numbers to ask for, with intensity.
        compounds: offer compound expressions; with ``expressions`` only.
        free_label: offer a free text label.
        clip: show a short video beside the face.
        predictions: show the machine's answer; every vote then records that.

    Raises:
        SettingsError: unknown label set or action unit.
    """

    label_set: str = "expressions"
    mood: bool = False
    units: tuple[int, ...] = ()
    compounds: bool = False
    free_label: bool = False
    clip: bool = False
    predictions: bool = False

    def __post_init__(self) -> None:
        if self.label_set not in LABEL_SETS:
            raise SettingsError(
                "Unknown label set",
                got=repr(self.label_set),
                hint=f"set RISORIUS_LABEL_SET to one of {', '.join(LABEL_SETS)}",
            )
        if unknown := [unit for unit in self.units if unit not in AU_INDEX]:
            raise SettingsError(
                "Unknown action units",
                got=", ".join(map(str, unknown)),
                hint=f"set RISORIUS_ASK_AU to some of {', '.join(map(str, AU_INDEX))}",
            )

    @property
    def labels(self) -> tuple[Option, ...]:
        """Return the options of the main question."""
        compounds = COMPOUND if self.compounds and self.label_set == "expressions" else ()
        return LABEL_SETS[self.label_set] + compounds


def control_of(unit: int) -> str:
    """Return the name of the control that asks for an action unit."""
    return f"au{unit}"


UNIT_NAMES = {unit.number: unit.name for unit in ACTION_UNITS}
UNIT_OF_CONTROL = {control_of(unit.number): unit.number for unit in ACTION_UNITS}

PREDICTIONS_SHOWN = " predictions shown"
_ALIAS = re.compile(r'alias="([^"]*)"')

RESERVED_KEYS = frozenset("v")
"""Keys reserved by the image viewer of the server."""

_TAGS = frozenset(
    (
        "View", "Style", "Image", "Video", "Audio", "Header", "Text", "Choices", "Choice",
        "TextArea", "Number", "Rating", "Taxonomy", "TimelineLabels", "Labels", "Label",
        "Paragraphs", "ParagraphLabels",
    )
)  # fmt: skip
_MOODS = {
    "valence": "Valence: unpleasant to pleasant",
    "arousal": "Arousal: calm to excited",
}
_STYLE = """
  .face-page { display: flex; flex-wrap: wrap; gap: 28px; align-items: flex-start; }
  .face-media { flex: 0 0 auto; width: 450px; }
  .face-clip { width: 540px; }
  .face-form { flex: 1 1 380px; max-width: 640px; }
  .face-form sup { font-size: 13px; font-weight: 600; opacity: 0.6; top: 0; margin-left: 6px; }
  .lsf-sidepanels__wrapper, .face-media .lsf-toolbar { display: none; }
  .lsf-sidepanels { padding-right: 0 !important; }
  .face-unit { display: flex; align-items: center; gap: 12px;
    border-bottom: 1px solid rgba(128, 128, 128, 0.25); }
  .face-unit h4 { flex: 0 0 190px; margin: 0 !important; font-size: 13px; font-weight: 500; }
  .face-unit .lsf-choices { margin: 0 !important; flex-wrap: nowrap; }
  .face-unit sup { display: none; }
"""
"""The `lsf` lines hide panels for regions and drawing tools. No `>`: the page would read it
escaped."""


def labeling_config(page: Page | None = None) -> str:
    """Return the labeling config (XML) of a project that asks ``page``.

    Raises:
        StudioError: two controls share a name or two choices a key.
    """
    page = page or Page()
    root = ElementTree.Element("View", className="face-page")
    ElementTree.SubElement(root, "Style").text = _STYLE
    column = "face-media face-clip" if page.clip else "face-media"
    _add_media(ElementTree.SubElement(root, "View", className=column), page)
    _add_form(ElementTree.SubElement(root, "View", className="face-form"), page)
    return linted_text(root, hint="report a bug")


def linted_text(root: ElementTree.Element, *, hint: str) -> str:
    """Return a labeling config as indented XML.

    Raises:
        StudioError: ``lint`` finds faults; ``hint`` says what to do about them.
    """
    ElementTree.indent(root)
    text = ElementTree.tostring(root, encoding="unicode")
    if faults := lint(text):
        raise StudioError("The labeling config has faults", got="; ".join(faults), hint=hint)
    return text


def fingerprint(config: str) -> str:
    """Return 12 hex digits that identify a labeling config."""
    return sha256_of([config.encode()])[:12]


def page_fingerprint(page: Page) -> str:
    """Return 12 hex digits that identify the questions and what is shown."""
    # A prediction beside the questions changes the meaning of a vote as a question does.
    return fingerprint(labeling_config(page) + (PREDICTIONS_SHOWN if page.predictions else ""))


def label_set_of(config: str) -> str:
    """Return the label set of a stored config, also of an edited one."""
    offered = set(_ALIAS.findall(config))
    for name, options in LABEL_SETS.items():
        if name != "expressions" and {option.alias for option in options} <= offered:
            return name
    return "expressions"


def lint(config: str) -> list[str]:
    """Return faults that the server's own validation misses, as sentences."""
    root = ElementTree.fromstring(config)
    faults = []
    names = [tag.get("name", "") for tag in root.iter() if tag.get("name")]
    keys = [key for tag in root.iter() if (key := tag.get("hotkey", "")) not in ("", NO_KEY)]
    faults += [f"unknown tag {tag.tag}" for tag in root.iter() if tag.tag not in _TAGS]
    faults += [f"the name {name} occurs twice" for name in _repeated(names)]
    faults += [f"the key {key} occurs twice" for key in _repeated(keys)]
    faults += [f"the key {key} is reserved by the viewer" for key in keys if key in RESERVED_KEYS]
    for control in root.iter("Choices"):
        aliases = [choice.get("alias", "") for choice in control]
        faults += [f"{control.get('name')} offers {a!r} twice" for a in _repeated(aliases)]
        if "" in aliases:
            faults.append(f"{control.get('name')} has a choice without alias")
    for tag in root.iter():
        target = tag.get("toName")
        if target is not None and target not in names:
            faults.append(f"{tag.get('name')} points at {target}, which does not exist")
    return faults


def _add_media(column: ElementTree.Element, page: Page) -> None:
    picture: dict[str, Any] = {
        "zoom": "true",
        "smoothing": "true",
        "zoomControl": "false",
        "rotateControl": "false",
    }
    # With a clip, three media share the column and must fit a screen.
    width = "300px" if page.clip else "448px"
    ElementTree.SubElement(column, "Image", name="crop", value="$crop", width=width, **picture)
    if page.clip:
        ElementTree.SubElement(column, "Video", name="clip", value="$clip", height="200")
    ElementTree.SubElement(column, "Header", value="Where it was seen (face marked)", size="6")
    ElementTree.SubElement(
        column, "Image", name="context", value="$context", width=width, **picture
    )


def _add_form(column: ElementTree.Element, page: Page) -> None:
    _header(column, "Is it a face one can judge?")
    _choices(column, "validity", VALIDITY, required="true")
    faces = ElementTree.SubElement(
        column, "View", visibleWhen="choice-selected", whenTagName="validity",
        whenChoiceValue="face",
    )  # fmt: skip
    _header(faces, "What does it show? Pick several if they compete")
    _choices(
        faces, "expression", page.labels, choice="multiple", required="true",
        requiredMessage="Pick at least one answer, or 9 for none of these",
        inline="true" if page.compounds else "false",
    )  # fmt: skip
    if page.free_label:
        _text(faces, "free_label", "A word of your own for it (optional)")
    _header(faces, "How sure are you? (optional)")
    _choices(faces, "confidence", CONFIDENCE)
    if page.mood:
        _add_moods(faces)
    if page.units:
        _add_units(faces, page.units)
    _text(column, "note", "A note, if something is odd (optional)")


def _add_moods(column: ElementTree.Element) -> None:
    for name, words in _MOODS.items():
        _header(column, f"{words} (optional)", size="6")
        # No key: the server's own key counts up from the minimum by one step.
        ElementTree.SubElement(
            column, "Number", name=name, toName="crop", slider="true",
            min=str(-MOOD_SCALE), max=str(MOOD_SCALE), step="10",
        )  # fmt: skip


def _add_units(column: ElementTree.Element, units: tuple[int, ...]) -> None:
    _header(column, "Action units: 0 = not there, A trace … E maximum (optional)")
    for unit in units:
        cell = ElementTree.SubElement(column, "View", className="face-unit")
        _header(cell, f"AU{unit} {UNIT_NAMES[unit]}", size="6")
        _choices(cell, control_of(unit), LEVELS)


def _text(parent: ElementTree.Element, name: str, words: str) -> None:
    ElementTree.SubElement(
        parent, "TextArea", name=name, toName="crop", rows="1", maxSubmissions="1",
        editable="true", placeholder=words,
    )  # fmt: skip


def _header(parent: ElementTree.Element, text: str, *, size: str = "5") -> None:
    ElementTree.SubElement(parent, "Header", value=text, size=size)


def _choices(
    parent: ElementTree.Element,
    name: str,
    options: tuple[Option, ...],
    *,
    choice: str = "single",
    inline: str = "true",
    **attributes: Any,
) -> None:
    control = ElementTree.SubElement(
        parent, "Choices", name=name, toName="crop", choice=choice, showInline=inline, **attributes
    )
    for option in options:
        more: dict[str, Any] = {"selected": "true"} if option.selected else {}
        ElementTree.SubElement(
            control, "Choice", value=option.text, alias=option.alias, hotkey=option.key, **more
        )


def _repeated(words: list[str]) -> list[str]:
    return sorted({word for word in words if words.count(word) > 1})
