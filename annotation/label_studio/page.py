"""What one labeling page asks: questions, their options, the keys that pick them.

The server stores each choice's alias, so aliases are the project's canonical names and the words
on the page may change without touching a vote.
"""

from __future__ import annotations

from dataclasses import dataclass

from warehouse.errors import SettingsError
from warehouse.vocabulary import ACTION_UNITS, AU_INDEX, EXPRESSIONS, INTENSITY


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
COARSE = (
    Option("neutral", "Neutral", "1"),
    Option("positive", "Positive", "2"),
    Option("negative", "Negative", "3"),
    Option("surprise", "Surprise", "4"),
    Option("unknown", "None of these / cannot tell", "9"),
)
"""Four classes, as composite data sets of micro-expressions merge theirs (MEGC 2019, plus
neutral)."""

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
"""The pairs of Du, Tao and Martinez, 2014 (doi:10.1073/pnas.1322355111). Whoever picks one has
picked both its parts."""

LABEL_SETS = {"expressions": EXPRESSION, "coarse": COARSE}
"""Questions of different granularity; only ``expressions`` makes votes and soft labels."""

MOODS = ("valence", "arousal")
MOOD_SCALE = 100
"""The page's sliders run from -100 to 100; tables hold -1 to 1."""

NO_KEY = "f24"
"""A key no keyboard has: a choice without one is given any letter that is free by the page."""

LEVELS = (
    Option("0", "0", NO_KEY),
    *(Option(letter, letter, NO_KEY) for letter in INTENSITY),
)
"""What can be said of an action unit: not there, or one of the FACS letters."""


@dataclass(frozen=True)
class Page:
    """Which questions a project asks. A project asks one page for as long as it lives.

    Attributes:
        label_set: a key of ``LABEL_SETS``.
        mood: ask for valence and arousal.
        units: FACS numbers to ask for, with intensity.
        compounds: offer compound expressions; with ``expressions`` only.
        free_label: offer a word of one's own.
        clip: show a short video beside the face.
        predictions: show the machine's answer; every vote then says so.
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
                f"a label set out of {', '.join(LABEL_SETS)}",
                got=repr(self.label_set),
                hint="set RISORIUS_LABEL_SET to one of them",
            )
        if unknown := [unit for unit in self.units if unit not in AU_INDEX]:
            raise SettingsError(
                f"action units out of {', '.join(str(unit) for unit in AU_INDEX)}",
                got=", ".join(map(str, unknown)),
                hint="change RISORIUS_ASK_AU",
            )

    @property
    def labels(self) -> tuple[Option, ...]:
        """The options of the main question."""
        compounds = COMPOUND if self.compounds and self.label_set == "expressions" else ()
        return LABEL_SETS[self.label_set] + compounds


def control_of(unit: int) -> str:
    """The name of the control that asks for an action unit."""
    return f"au{unit}"


UNIT_NAMES = {unit.number: unit.name for unit in ACTION_UNITS}
UNIT_OF_CONTROL = {control_of(unit.number): unit.number for unit in ACTION_UNITS}
