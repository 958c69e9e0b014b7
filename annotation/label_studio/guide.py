"""Generate the annotator's guide and its drawings of schematic faces.

The guide is generated from the page it explains and shown in the instruction pane.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path

from annotation.label_studio.labeling_config import COMPOUND, Option, Page
from warehouse.storage import atomic
from warehouse.vocabulary import EXPRESSIONS

FOLDER = "guide"
"""Folder of the media store with the drawings."""

SIZE = 72
"""Width and height of a drawing in the guide, pixels."""

_APPEARANCE = {
    "neutral": "nothing moves; a face at rest, even if it looks stern or tired",
    "happiness": "lip corners up, cheeks raised, small folds beside the eyes",
    "surprise": "brows up in an arch, eyes wide, jaw dropped and slack",
    "sadness": "inner ends of the brows up, lip corners down, gaze lowered",
    "anger": "brows down and together, eyes hard, lips pressed or square",
    "disgust": "nose wrinkled, upper lip raised",
    "fear": "brows up and together, eyes wide, lips stretched sideways",
    "contempt": "one lip corner tight or raised, the other not",
    "positive": "the face looks pleased, in any way",
    "negative": "the face looks displeased, in any way: sad, angry, disgusted, afraid, scornful",
    "unknown": "none of these, or you cannot tell. That is an answer, not a failure",
}
"""Typical look of an expression: a reminder, not a coding rule."""

_EXAMPLES = (
    ("a wide smile with folds beside the eyes", ("happiness",)),
    ("wide eyes and a dropped jaw; it might as well be fright", ("surprise", "fear")),
    ("a face you cannot read", ("unknown",)),
)
_COARSE_EXAMPLES = (
    ("a wide smile with folds beside the eyes", ("positive",)),
    ("pressed lips and lowered brows", ("negative",)),
    ("a face you cannot read", ("unknown",)),
)


def instruction(page: Page | None = None) -> str:
    """Return the guide as HTML.

    Task, keys, typical expressions, worked examples.

    The server strips styles, lists and inline drawings. Bold text, tables and pictures by
    address survive, so the drawings are files that it serves.
    """
    page = page or Page()
    parts = [*_rules(page), _appearance(page), _examples(page), *_closing(page)]
    return "<br/><br/>".join(parts)


def _rules(page: Page) -> list[str]:
    last = max(option.key for option in page.labels if option.key < "9")
    rules = [
        "<b>Say what the face in the large picture shows.</b> The picture below it only helps: "
        "the same face is marked there, in the frame it came from.",
        f"<b>1</b> to <b>{last}</b> pick an answer, <b>Enter</b> submits (or Ctrl+Enter). The keys "
        "stand beside the words.",
        "Two at once, or you waver between two? Pick both: number, number, Enter.",
        "None of them, or you cannot tell? <b>9</b>.",
        "No face at all: <b>n</b>. A face too dark, blurred or hidden to judge: <b>u</b>.",
    ]
    if page.predictions:
        rules.append("<b>This project shows a machine's guess.</b> It is often wrong: look first.")
    return rules


def _appearance(page: Page) -> str:
    shown = [option for option in page.labels if option.alias in _APPEARANCE]
    drawn = [_drawn(option) for option in shown if option.alias in EXPRESSIONS]
    # Two per row, so that the guide fits a screen.
    rows = [f"<tr>{''.join(drawn[start : start + 2])}</tr>" for start in range(0, len(drawn), 2)]
    rest = [
        f"<b>{escape(option.text)}</b> ({option.key}): {_APPEARANCE[option.alias]}"
        for option in shown
        if option.alias not in EXPRESSIONS
    ]
    title = "<b>How they usually look</b>, much simplified"
    return f"{title}<table>{''.join(rows)}</table>{'<br/>'.join(rest)}"


def _drawn(option: Option) -> str:
    address = f"/data/local-files/?d={FOLDER}/{option.alias}.svg"
    picture = f'<img src="{address}" alt="" width="{SIZE}" height="{SIZE}"/>'
    text = f"<b>{escape(option.text)}</b> ({option.key})<br/>{_APPEARANCE[option.alias]}"
    return f'<td width="{SIZE + 8}">{picture}</td><td width="220">{text}</td>'


def _examples(page: Page) -> str:
    keys = {option.alias: option for option in page.labels}
    chosen = _COARSE_EXAMPLES if page.label_set == "coarse" else _EXAMPLES
    lines = [
        f"{escape(seen)}: {', '.join(_key(keys[name]) for name in names)}, Enter"
        for seen, names in chosen
    ]
    return "<br/>".join(["<b>Examples</b>", *lines])


def _closing(page: Page) -> list[str]:
    more = []
    if page.compounds:
        first = COMPOUND[0]
        more.append(
            f"A compound, such as <b>{first.text}</b> ({first.key}), stands for both its parts."
        )
    if page.mood:
        more.append(
            "The sliders are optional: how pleasant, and how excited, the face looks. Left alone, "
            "they say nothing."
        )
    if page.units:
        more.append(
            "Action units are optional and for people trained in FACS: 0 where a unit is not "
            "there, A (trace) to E (maximum) where it is. What you leave open stays unknown."
        )
    if page.free_label:
        more.append("A word of your own may stand beside the numbers, never in their place.")
    return [
        *more,
        "Trust your first impression. People disagree about faces, and we keep the disagreement.",
        "You would rather not judge this one? Skip it: others will see it.",
    ]


def _key(option: Option) -> str:
    return f"<b>{option.key}</b> ({escape(option.text)})"


@dataclass(frozen=True)
class _Drawing:
    """A face of 100 by 100 units; brow and eye are mirrored.

    Attributes:
        brow: heights of the brow's outer end, middle and inner end; smaller is higher.
        eye: half the height of the eye's opening.
        mouth: path of the mouth.
        more: path of further lines, such as folds or a wrinkled nose.
        open: fill the mouth.
    """

    brow: tuple[float, float, float]
    eye: float
    mouth: str
    more: str = ""
    open: bool = False


_BOTH_SIDES = (30, 70)
_DRAWINGS = {
    "neutral": _Drawing((34, 31, 33), 4.5, "M38 72 H62"),
    "happiness": _Drawing(
        (33, 29, 32), 2.6, "M33 66 Q50 71 67 66 Q50 90 33 66 Z",
        "M17 42 l5 2 M16 47 l6 0 M83 42 l-5 2 M84 47 l-6 0 M28 57 Q27 63 30 68 M72 57 Q73 63 70 68",
        open=True,
    ),
    "surprise": _Drawing(
        (27, 20, 25), 8, "M43 76 a7 10 0 1 0 14 0 a7 10 0 1 0 -14 0 Z", open=True
    ),
    "sadness": _Drawing((36, 31, 25), 3.4, "M37 76 Q50 67 63 76"),
    "anger": _Drawing((29, 33, 40), 4, "M38 74 H62 M40 77.5 H60", "M47 28 v7 M53 28 v7"),
    "disgust": _Drawing(
        (34, 35, 38), 2.4, "M36 75 Q43 66 50 69 Q57 66 64 75",
        "M45 48 l10 0 M44 52 l12 0 M38 57 Q34 63 35 69 M62 57 Q66 63 65 69",
    ),
    "fear": _Drawing((30, 24, 24), 7, "M33 72 Q50 68 67 72 L66 78 Q50 80 34 78 Z", open=True),
    "contempt": _Drawing((34, 31, 33), 4, "M38 73 Q54 74 64 66", "M67 61 Q69 65 66 69"),
}  # fmt: skip


def drawing(expression: str) -> str:
    """Return an SVG of a schematic face with an expression, 100 by 100 units."""
    shape = _DRAWINGS[expression]
    outer, middle, inner = shape.brow
    brows = f"M20 {outer} Q31 {middle} 42 {inner} M80 {outer} Q69 {middle} 58 {inner}"
    eyes = "".join(
        f'<ellipse cx="{x}" cy="45" rx="7" ry="{shape.eye}" fill="#fff"/>'
        f'<circle cx="{x}" cy="45" r="{min(3.2, shape.eye)}" fill="#26222e" stroke="none"/>'
        for x in _BOTH_SIDES
    )
    inside = "#7d3038" if shape.open else "none"
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 100 100">'
        '<g fill="none" stroke="#26222e" stroke-width="2" stroke-linecap="round" '
        'stroke-linejoin="round">'
        '<path d="M50 4 C84 4 90 34 86 58 C82 82 66 97 50 97 '
        'C34 97 18 82 14 58 C10 34 16 4 50 4 Z" '
        'fill="#f1dcc6"/>'
        f'<path d="{brows}" stroke-width="3.4"/>{eyes}'
        '<path d="M50 46 Q46 57 47 60 Q50 62 53 60" stroke-width="1.6"/>'
        f'<path d="{shape.mouth}" fill="{inside}" stroke-width="2.6"/>'
        f'<path d="{shape.more}" stroke-width="1.5"/></g></svg>\n'
    )


def write_drawings(media_dir: Path) -> None:
    """Write the drawings to the media folder; unchanged files are left alone."""
    for expression in EXPRESSIONS:
        path, text = media_dir / FOLDER / f"{expression}.svg", drawing(expression)
        if not path.is_file() or path.read_text() != text:
            atomic.write_text(path, text)
