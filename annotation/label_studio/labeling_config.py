"""The labeling config, generated from a ``Page``: one face, few questions, few keys."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

from annotation.label_studio.page import (
    CONFIDENCE,
    LEVELS,
    MOOD_SCALE,
    NO_KEY,
    UNIT_NAMES,
    VALIDITY,
    Option,
    Page,
    control_of,
)
from warehouse.errors import StudioError
from warehouse.ids import sha256_of

TAKEN_KEYS = frozenset("v")
"""Keys that the image viewer of the server keeps for itself."""

_TAGS = frozenset(
    ("View", "Style", "Image", "Video", "Header", "Choices", "Choice", "TextArea", "Number")
)
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
"""The `lsf` lines hide panels for regions and drawing tools: nobody draws here. No `>`: the page
reads it as it stands in the XML, escaped."""


def labeling_config(page: Page | None = None) -> str:
    """The labeling config (XML) of a project that asks ``page``.

    Raises:
        StudioError: two controls share a name or two choices a key.
    """
    page = page or Page()
    root = ElementTree.Element("View", className="face-page")
    ElementTree.SubElement(root, "Style").text = _STYLE
    column = "face-media face-clip" if page.clip else "face-media"
    _add_media(ElementTree.SubElement(root, "View", className=column), page)
    _add_form(ElementTree.SubElement(root, "View", className="face-form"), page)
    ElementTree.indent(root)
    text = ElementTree.tostring(root, encoding="unicode")
    if faults := lint(text):
        raise StudioError(
            "a labeling config without faults", got="; ".join(faults), hint="mend config.py"
        )
    return text


def fingerprint(config: str) -> str:
    """Twelve hex digits that name a labeling config."""
    return sha256_of([config.encode()])[:12]


def lint(config: str) -> list[str]:
    """Faults the server's own validators let pass, as sentences; none when it is fine."""
    root = ElementTree.fromstring(config)
    faults = []
    names = [tag.get("name", "") for tag in root.iter() if tag.get("name")]
    keys = [key for tag in root.iter() if (key := tag.get("hotkey", "")) not in ("", NO_KEY)]
    faults += [f"unknown tag {tag.tag}" for tag in root.iter() if tag.tag not in _TAGS]
    faults += [f"the name {name} is used twice" for name in _repeated(names)]
    faults += [f"the key {key} is used twice" for key in _repeated(keys)]
    faults += [f"the key {key} belongs to the viewer" for key in keys if key in TAKEN_KEYS]
    for control in root.iter("Choices"):
        aliases = [choice.get("alias", "") for choice in control]
        faults += [f"{control.get('name')} offers {a!r} twice" for a in _repeated(aliases)]
        if "" in aliases:
            faults.append(f"{control.get('name')} has a choice without alias")
    for tag in root.iter():
        target = tag.get("toName")
        if target is not None and target not in names:
            faults.append(f"{tag.get('name')} points at {target}, which is not there")
    return faults


def _add_media(column: ElementTree.Element, page: Page) -> None:
    picture: dict[str, Any] = {
        "zoom": "true",
        "smoothing": "true",
        "zoomControl": "false",
        "rotateControl": "false",
    }
    # With a clip three things share the column, and must still fit a screen.
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
        # No key: the server's own counts up from the minimum, one step a press.
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
