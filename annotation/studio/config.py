"""The labeling page, generated from the vocabulary: one face, one question, few keys.

What the server stores is each choice's alias, so aliases are the project's canonical names and
the words on the page may change without touching a vote.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

from warehouse.errors import StudioError
from warehouse.ids import sha256_of
from warehouse.vocabulary import EXPRESSIONS

TAKEN_KEYS = frozenset("v")
"""Keys that the image viewer of the server keeps for itself."""


@dataclass(frozen=True)
class Option:
    """One choice: what is stored, what the page says, which key picks it."""

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
CONFIDENCE = (
    Option("guess", "A guess", "q"),
    Option("likely", "Likely", "w"),
    Option("sure", "Sure", "e"),
)

_STYLE = """
  .face-page { display: flex; flex-wrap: wrap; gap: 28px; align-items: flex-start; }
  .face-media { flex: 0 0 auto; width: 450px; }
  .face-form { flex: 1 1 380px; max-width: 640px; }
  .face-form sup { font-size: 13px; font-weight: 600; opacity: 0.6; top: 0; margin-left: 6px; }
  .lsf-sidepanels__wrapper, .face-media .lsf-toolbar { display: none; }
  .lsf-sidepanels { padding-right: 0 !important; }
"""
"""The last two lines hide panels for regions and drawing tools: nobody draws here."""


def labeling_config() -> str:
    """The labeling config (XML) of a project of pictures.

    Raises:
        StudioError: two controls share a name or two choices a key.
    """
    page = ElementTree.Element("View", className="face-page")
    ElementTree.SubElement(page, "Style").text = _STYLE
    _add_media(ElementTree.SubElement(page, "View", className="face-media"))
    _add_form(ElementTree.SubElement(page, "View", className="face-form"))
    ElementTree.indent(page)
    text = ElementTree.tostring(page, encoding="unicode")
    if faults := lint(text):
        raise StudioError(
            "a labeling config without faults", got="; ".join(faults), mend="mend config.py"
        )
    return text


def fingerprint(config: str) -> str:
    """Twelve hex digits that name a labeling config."""
    return sha256_of([config.encode()])[:12]


def lint(config: str) -> list[str]:
    """Faults the server's own validators let pass, as sentences; none when it is fine."""
    root = ElementTree.fromstring(config)
    faults = []
    known = {
        "View", "Style", "Image", "Header", "Choices", "Choice", "TextArea",
    }  # fmt: skip
    names = [tag.get("name", "") for tag in root.iter() if tag.get("name")]
    keys = [tag.get("hotkey", "") for tag in root.iter() if tag.get("hotkey")]
    faults += [f"unknown tag {tag.tag}" for tag in root.iter() if tag.tag not in known]
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


def _add_media(column: ElementTree.Element) -> None:
    picture: dict[str, Any] = {
        "zoom": "true",
        "smoothing": "true",
        "zoomControl": "false",
        "rotateControl": "false",
    }
    ElementTree.SubElement(column, "Image", name="crop", value="$crop", width="448px", **picture)
    ElementTree.SubElement(column, "Header", value="Where it was seen (face marked)", size="6")
    ElementTree.SubElement(
        column, "Image", name="context", value="$context", width="448px", **picture
    )


def _add_form(column: ElementTree.Element) -> None:
    _header(column, "Is it a face one can judge?")
    _choices(column, "validity", VALIDITY, required="true")
    only_faces = ElementTree.SubElement(
        column, "View", visibleWhen="choice-selected", whenTagName="validity",
        whenChoiceValue="face",
    )  # fmt: skip
    _header(only_faces, "What does it show? Pick several if they compete")
    _choices(
        only_faces, "expression", EXPRESSION, choice="multiple", required="true",
        requiredMessage="Pick at least one expression, or 9 for none of these", inline="false",
    )  # fmt: skip
    _header(only_faces, "How sure are you? (optional)")
    _choices(only_faces, "confidence", CONFIDENCE)
    ElementTree.SubElement(
        column, "TextArea", name="note", toName="crop", rows="1", maxSubmissions="1",
        editable="true", placeholder="A note, if something is odd (optional)",
    )  # fmt: skip


def _header(parent: ElementTree.Element, text: str) -> None:
    ElementTree.SubElement(parent, "Header", value=text, size="5")


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
        selected: dict[str, Any] = {"selected": "true"} if option.selected else {}
        ElementTree.SubElement(
            control, "Choice", value=option.text, alias=option.alias, hotkey=option.key, **selected
        )


def _repeated(words: list[str]) -> list[str]:
    return sorted({word for word in words if words.count(word) > 1})
