"""Small drawn faces for the annotator's guide: schemes of the eight expressions, of nobody."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from warehouse.storage import atomic
from warehouse.vocabulary import EXPRESSIONS

FOLDER = "guide"
"""The folder of the media store that the drawings are served from."""

SIZE = 72
"""Width and height in pixels as the guide shows them."""


@dataclass(frozen=True)
class _Look:
    """A face of 100 by 100, told for its left half; the right one mirrors it.

    Attributes:
        brow: heights of the brow's outer end, middle and inner end; a smaller number is higher.
        eye: half the height of the eye's opening.
        mouth: path of the mouth; filled where it is open.
        more: further lines: folds, a wrinkled nose.
    """

    brow: tuple[float, float, float]
    eye: float
    mouth: str
    more: str = ""
    open: bool = False


_BOTH_SIDES = (30, 70)
_LOOKS = {
    "neutral": _Look((34, 31, 33), 4.5, "M38 72 H62"),
    "happiness": _Look(
        (33, 29, 32), 2.6, "M33 66 Q50 71 67 66 Q50 90 33 66 Z",
        "M17 42 l5 2 M16 47 l6 0 M83 42 l-5 2 M84 47 l-6 0 M28 57 Q27 63 30 68 M72 57 Q73 63 70 68",
        open=True,
    ),
    "surprise": _Look(
        (27, 20, 25), 8, "M43 76 a7 10 0 1 0 14 0 a7 10 0 1 0 -14 0 Z", open=True
    ),
    "sadness": _Look((36, 31, 25), 3.4, "M37 76 Q50 67 63 76"),
    "anger": _Look((29, 33, 40), 4, "M38 74 H62 M40 77.5 H60", "M47 28 v7 M53 28 v7"),
    "disgust": _Look(
        (34, 35, 38), 2.4, "M36 75 Q43 66 50 69 Q57 66 64 75",
        "M45 48 l10 0 M44 52 l12 0 M38 57 Q34 63 35 69 M62 57 Q66 63 65 69",
    ),
    "fear": _Look((30, 24, 24), 7, "M33 72 Q50 68 67 72 L66 78 Q50 80 34 78 Z", open=True),
    "contempt": _Look((34, 31, 33), 4, "M38 73 Q54 74 64 66", "M67 61 Q69 65 66 69"),
}  # fmt: skip


def drawing(expression: str) -> str:
    """An SVG of a schematic face that shows an expression, 100 by 100 units."""
    look = _LOOKS[expression]
    outer, middle, inner = look.brow
    brows = f"M20 {outer} Q31 {middle} 42 {inner} M80 {outer} Q69 {middle} 58 {inner}"
    eyes = "".join(
        f'<ellipse cx="{x}" cy="45" rx="7" ry="{look.eye}" fill="#fff"/>'
        f'<circle cx="{x}" cy="45" r="{min(3.2, look.eye)}" fill="#26222e" stroke="none"/>'
        for x in _BOTH_SIDES
    )
    inside = "#7d3038" if look.open else "none"
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 100 100">'
        '<g fill="none" stroke="#26222e" stroke-width="2" stroke-linecap="round" '
        'stroke-linejoin="round">'
        '<path d="M50 4 C84 4 90 34 86 58 C82 82 66 97 50 97 '
        'C34 97 18 82 14 58 C10 34 16 4 50 4 Z" '
        'fill="#f1dcc6"/>'
        f'<path d="{brows}" stroke-width="3.4"/>{eyes}'
        '<path d="M50 46 Q46 57 47 60 Q50 62 53 60" stroke-width="1.6"/>'
        f'<path d="{look.mouth}" fill="{inside}" stroke-width="2.6"/>'
        f'<path d="{look.more}" stroke-width="1.5"/></g></svg>\n'
    )


def write_drawings(media_dir: Path) -> None:
    """Put the drawings where the server can serve them; one that is there already stays."""
    for expression in EXPRESSIONS:
        path, text = media_dir / FOLDER / f"{expression}.svg", drawing(expression)
        if not path.is_file() or path.read_text() != text:
            atomic.write_text(path, text)
