"""Define expressions and action units and their order."""

from __future__ import annotations

from dataclasses import dataclass

EXPRESSIONS = (
    "neutral",
    "happiness",
    "surprise",
    "sadness",
    "anger",
    "disgust",
    "fear",
    "contempt",
)
"""Order of FER+ (Barsoum et al., 2016); every ``expression[8]`` vector follows it."""

OPEN_SET = ("unknown", "not_a_face")
"""Answers outside the known classes; every ``open_set[2]`` vector follows it."""

ANSWERS = EXPRESSIONS + OPEN_SET

VERDICTS = ("kept", "dropped", "failed")

RATER_KINDS = ("person", "machine", "simulated", "self")

INTENSITY = {"A": 0.1, "B": 0.25, "C": 0.5, "D": 0.8, "E": 1.0}
"""FACS letters as floats. The values are a convention of this project; FACS is ordinal."""


@dataclass(frozen=True)
class ActionUnit:
    """Describe one action unit of FACS: number, name and muscles."""

    number: int
    name: str
    muscles: str

    @property
    def code(self) -> str:
        return f"AU{self.number}"


ACTION_UNITS = tuple(
    ActionUnit(*row)
    for row in (
        (1, "inner brow raiser", "frontalis, medial part"),
        (2, "outer brow raiser", "frontalis, lateral part"),
        (4, "brow lowerer", "corrugator and depressor supercilii, procerus"),
        (5, "upper lid raiser", "levator palpebrae superioris"),
        (6, "cheek raiser", "orbicularis oculi, orbital part"),
        (7, "lid tightener", "orbicularis oculi, palpebral part"),
        (9, "nose wrinkler", "levator labii superioris alaeque nasi"),
        (10, "upper lip raiser", "levator labii superioris"),
        (11, "nasolabial deepener", "zygomaticus minor"),
        (12, "lip corner puller", "zygomaticus major"),
        (14, "dimpler", "buccinator"),
        (15, "lip corner depressor", "depressor anguli oris"),
        (16, "lower lip depressor", "depressor labii inferioris"),
        (17, "chin raiser", "mentalis"),
        (18, "lip pucker", "incisivii labii"),
        (20, "lip stretcher", "risorius, platysma"),
        (22, "lip funneler", "orbicularis oris"),
        (23, "lip tightener", "orbicularis oris"),
        (24, "lip pressor", "orbicularis oris"),
        (25, "lips part", "depressor labii inferioris, relaxed mentalis"),
        (26, "jaw drop", "relaxed masseter"),
        (27, "mouth stretch", "pterygoids, digastric"),
        (28, "lip suck", "orbicularis oris"),
        (43, "eyes closed", "relaxed levator palpebrae superioris"),
    )
)
"""Every ``au[K]`` vector follows this order; ``K = len(ACTION_UNITS)``."""

AU_INDEX = {unit.number: position for position, unit in enumerate(ACTION_UNITS)}


@dataclass(frozen=True)
class Compound:
    """Describe a compound expression by its parts and action units.

    Attributes:
        parts: the two expressions it combines.
        units: action units that more than 70 % of the posers showed.
        variants: action unit to the share of posers who showed it.
    """

    parts: tuple[str, ...]
    units: tuple[int, ...]
    variants: dict[int, float]


PROTOTYPES: dict[str, dict[int, float | None]] = {
    "neutral": {},
    "happiness": {6: None, 12: None},
    "surprise": {1: None, 2: None, 5: 0.25, 26: None},
    "sadness": {1: None, 4: None, 15: None},
    "anger": {4: None, 5: None, 7: None, 23: None},
    "disgust": {9: None, 15: None, 16: None},
    "fear": {1: None, 2: None, 4: None, 5: None, 7: None, 20: None, 26: None},
    "contempt": {12: 0.1, 14: 0.1},
}
"""Expression to action units and intensity; None stands for any intensity. Source: EMFACS (Friesen
& Ekman, 1983), as commonly tabulated. Contempt is one-sided (R12A + R14A). These are posed
prototypes: a face does not show what a person feels (Barrett et al., 2019,
doi:10.1177/1529100619832930)."""

COMPOUNDS: dict[str, Compound] = {
    "happily surprised": Compound(
        ("happiness", "surprise"), (1, 2, 12, 25), {5: 0.64, 26: 0.67}
    ),
    "happily disgusted": Compound(
        ("happiness", "disgust"), (10, 12, 25), {4: 0.32, 6: 0.61, 9: 0.59}
    ),
    "sadly fearful": Compound(
        ("sadness", "fear"), (1, 4, 20, 25), {2: 0.46, 5: 0.24, 6: 0.34, 15: 0.30}
    ),
    "sadly angry": Compound(
        ("sadness", "anger"), (4, 15), {6: 0.26, 7: 0.48, 11: 0.20, 17: 0.50}
    ),
    "sadly surprised": Compound(("sadness", "surprise"), (1, 4, 25, 26), {2: 0.27, 6: 0.31}),
    "sadly disgusted": Compound(
        ("sadness", "disgust"), (4, 10),
        {1: 0.49, 6: 0.61, 9: 0.20, 11: 0.35, 15: 0.54, 17: 0.47, 25: 0.43},
    ),
    "fearfully angry": Compound(
        ("fear", "anger"), (4, 20, 25), {5: 0.40, 7: 0.39, 10: 0.30, 11: 0.33}
    ),
    "fearfully surprised": Compound(
        ("fear", "surprise"), (1, 2, 5, 20, 25), {4: 0.47, 10: 0.35, 11: 0.22, 26: 0.51}
    ),
    "fearfully disgusted": Compound(
        ("fear", "disgust"), (1, 4, 10, 20, 25), {2: 0.64, 5: 0.50, 6: 0.26, 9: 0.28, 15: 0.33}
    ),
    "angrily surprised": Compound(
        ("anger", "surprise"), (4, 25, 26), {1: 0.35, 2: 0.37, 7: 0.50, 10: 0.34}
    ),
    "angrily disgusted": Compound(
        ("anger", "disgust"), (4, 10, 17), {7: 0.60, 9: 0.57, 24: 0.36}
    ),
    "disgustedly surprised": Compound(
        ("disgust", "surprise"), (1, 2, 5, 10), {4: 0.45, 9: 0.37, 17: 0.66, 24: 0.33}
    ),
    "appalled": Compound(
        ("disgust", "anger"), (4, 10), {6: 0.25, 9: 0.56, 17: 0.67, 24: 0.36}
    ),
    "hatred": Compound(
        ("disgust", "anger"), (4, 10), {7: 0.57, 9: 0.27, 17: 0.63, 24: 0.37}
    ),
    "awed": Compound(("fear", "surprise"), (1, 2, 5, 25), {4: 0.21, 20: 0.62, 26: 0.56}),
}  # fmt: skip
"""Compound expressions posed by 230 people: Du, Tao & Martinez, PNAS 111(15) E1454, 2014, Table 1,
doi:10.1073/pnas.1322355111. Copied from a secondary record of that table."""


def canonical(label: str) -> str:
    """Return the answer that a label, synonym or translation stands for.

    The words are those of the label set ``expressions8``.

    Raises:
        KeyError: the label is unknown; the message lists the known ones.
    """
    from warehouse import label_sets

    return label_sets.load("expressions8").canonical(label)
