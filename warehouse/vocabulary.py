"""Expressions and action units: the one place that names them."""

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
"""The order of FER+ (Barsoum et al., 2016); every ``expression[8]`` vector follows it."""

OPEN_SET = ("unknown", "not_a_face")
"""Answers outside the known classes; every ``open_set[2]`` vector follows it."""

ANSWERS = EXPRESSIONS + OPEN_SET

VERDICTS = ("kept", "dropped", "failed")

RATER_KINDS = ("person", "machine", "simulated", "self")

INTENSITY = {"A": 0.1, "B": 0.25, "C": 0.5, "D": 0.8, "E": 1.0}
"""FACS letters as floats. The knots are this project's convention; FACS itself is ordinal."""

_SYNONYMS = {
    "happy": "happiness", "joy": "happiness", "smile": "happiness",
    "sad": "sadness", "angry": "anger", "disgusted": "disgust",
    "fearful": "fear", "afraid": "fear", "scared": "fear",
    "surprised": "surprise", "contemptuous": "contempt", "natural": "neutral",
    "none": "neutral", "other": "unknown", "uncertain": "unknown", "nf": "not_a_face",
    "not a face": "not_a_face", "no_face": "not_a_face", "non-face": "not_a_face",
}  # fmt: skip


@dataclass(frozen=True)
class ActionUnit:
    """One facial action of FACS: its number, its name and the muscles that make it."""

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


def canonical(label: str) -> str:
    """The project's name for a label written any of the usual ways.

    Raises:
        KeyError: nothing known matches; the message lists what is known.
    """
    key = label.strip().lower()
    if key in ANSWERS:
        return key
    if key in _SYNONYMS:
        return _SYNONYMS[key]
    raise KeyError(f"{label!r} is none of {', '.join(ANSWERS)} nor a known synonym of one")
