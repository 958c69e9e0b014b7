"""Carry the words and numbers of a data set over to answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from warehouse import label_sets
from warehouse.errors import SettingsError
from warehouse.label_sets import LabelSet, fold
from warehouse.vocabulary import ANSWERS, EXPRESSIONS, canonical

EXPRESSION_SET = "expressions"
"""Name in tables of votes about the eight expressions."""


@dataclass(frozen=True)
class Answered:
    """Answers of one vote.

    Attributes:
        answers: names of the label set, in its order.
        compounds: compound expressions among them, as the page names them.
        strange: words that stand for no answer.
    """

    answers: tuple[str, ...]
    compounds: tuple[str, ...]
    strange: tuple[str, ...]


class Words:
    """The answers that words of a data set stand for.

    Args:
        default: ``<label set>[:<order>]`` of the format.
        label_set: the same by the user; without an order the format's own counts if the set has
            it.
        label_map: the user's words and answers; an empty answer drops a word.
        words: further words of the format.

    Raises:
        SettingsError: there is no such set or order, or a map names no answer of the set.
    """

    def __init__(
        self,
        default: str,
        *,
        label_set: str | None = None,
        label_map: Mapping[str, str] | None = None,
        words: Mapping[str, str] | None = None,
    ) -> None:
        named, _, order = (label_set or default).partition(":")
        self.label_set: LabelSet = label_sets.load(named)
        own = default.partition(":")[2]
        if not order and own in self.label_set.orders:
            order = own
        if order and order not in self.label_set.orders:
            raise SettingsError(
                f"The label set {named} has no such order",
                got=order,
                hint=f"use one of {', '.join(sorted(self.label_set.orders)) or 'none'}",
            )
        found = self.label_set.orders[order] if order else None
        self._numbers = {n: answer for answer, n in found.numbers.items()} if found else {}
        self._order = {fold(word): answer for answer, word in found.words.items()} if found else {}
        self._words = {fold(word): text for word, text in (words or {}).items()}
        classes = set(self.label_set.classes)
        self.compound = any("+" in name for name in classes)
        self.name = (
            EXPRESSION_SET if classes <= set(EXPRESSIONS) or self.compound else self.label_set.name
        )
        self._given = {fold(word): self._target(text) for word, text in (label_map or {}).items()}
        self._spelling = {fold(word): word for word in label_map or {}}
        self.used: Counter[str] = Counter()

    def _target(self, text: str) -> str:
        if not text.strip():
            return ""
        found = self._plain(text)
        if found is None:
            raise SettingsError(
                "A label map names an answer that the label set lacks",
                got=f"{text!r}",
                hint="use one of " + ", ".join(one.name for one in self.label_set.answers)
                + "; an empty answer drops a word",
            )  # fmt: skip
        return found

    def answer(self, word: str) -> str | None:
        """Return the answer of a word; empty if it is dropped, None if unknown."""
        text = fold(word)
        if text in self._given:
            self.used[text] += 1
            return self._given[text]
        if text in self._words:
            return self._plain(self._words[text])
        number = _whole(text)
        if number is not None:
            return self._numbers.get(number)
        return self._order.get(text) or self._plain(word)

    def read(self, labels: tuple[str, ...], *, answered: bool = False) -> Answered:
        """Return the answers of the words of one vote.

        Args:
            answered: the labels are answers already.
        """
        given: dict[str, None] = {}
        strange = []
        for word in labels:
            found = word if answered else self.answer(word)
            if found is None:
                strange.append(word)
            elif found:
                given[found] = None
        compounds = tuple(sorted(name for name in given if "+" in name))
        parts = {part for name in given for part in name.split("+")}
        if self.name == EXPRESSION_SET:
            return Answered(tuple(sorted(parts, key=ANSWERS.index)), compounds, tuple(strange))
        places = [one.name for one in self.label_set.answers]
        return Answered(tuple(sorted(given, key=places.index)), (), tuple(strange))

    def unused(self) -> list[str]:
        """Return the words of the user's map that never occurred."""
        return [word for text, word in self._spelling.items() if not self.used[text]]

    def known(self) -> str:
        """Return the answers, for messages."""
        return ", ".join(one.name for one in self.label_set.answers)

    def _plain(self, word: str) -> str | None:
        try:
            return self.label_set.canonical(word)
        except KeyError:
            pass
        if self.label_set.name not in ("expressions8", "basic7", "basic6") and not self.compound:
            return None
        others = (label_sets.load(name).canonical for name in ("expressions8", "compound12"))
        for read in (canonical, *others):
            try:
                return read(word)
            except KeyError:
                continue
        return None


def _whole(text: str) -> int | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return int(value) if value.is_integer() else None
