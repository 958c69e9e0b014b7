"""The annotator's guide, generated from the page it explains; shown in the instruction pane."""

from __future__ import annotations

from html import escape

from annotation.label_studio.drawings import FOLDER, SIZE
from annotation.label_studio.page import COMPOUND, Option, Page
from warehouse.vocabulary import EXPRESSIONS

_LOOKS = {
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
"""How an expression usually looks: a reminder, not a rule to be coded by."""

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
    """HTML of the guide: what to do, which keys, how expressions usually look, worked examples.

    The server strips styles, flattens lists and leaves nothing of a drawing in the text; bold
    text, tables and pictures by address survive, so the drawings are files it serves.
    """
    page = page or Page()
    parts = [*_rules(page), _looks(page), _examples(page), *_closing(page)]
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


def _looks(page: Page) -> str:
    shown = [option for option in page.labels if option.alias in _LOOKS]
    drawn = [_drawn(option) for option in shown if option.alias in EXPRESSIONS]
    # Two to a row, so that the guide fits a screen.
    rows = [f"<tr>{''.join(drawn[start : start + 2])}</tr>" for start in range(0, len(drawn), 2)]
    rest = [
        f"<b>{escape(option.text)}</b> ({option.key}): {_LOOKS[option.alias]}"
        for option in shown
        if option.alias not in EXPRESSIONS
    ]
    title = "<b>How they usually look</b>, much simplified"
    return f"{title}<table>{''.join(rows)}</table>{'<br/>'.join(rest)}"


def _drawn(option: Option) -> str:
    address = f"/data/local-files/?d={FOLDER}/{option.alias}.svg"
    picture = f'<img src="{address}" alt="" width="{SIZE}" height="{SIZE}"/>'
    text = f"<b>{escape(option.text)}</b> ({option.key})<br/>{_LOOKS[option.alias]}"
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
