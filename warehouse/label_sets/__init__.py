"""Read label sets: named lists of answers, kept as data files.

A label set says which answers a question offers, under which other words they are known, how
published data sets number them (``orders``), and which answer of another set each one stands for
(``maps``). A vote given under one set counts under another only by such a map.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np

from warehouse import data_files
from warehouse.errors import SettingsError
from warehouse.ids import fold_name

FOLDER = Path(__file__).parent
ALIASES = {"expressions": "expressions8", "coarse": "coarse4"}
"""Names that tables and settings of earlier versions hold."""

CHOOSE = ("one", "several", "intensity")


@dataclass(frozen=True)
class Answer:
    """One answer of a label set.

    Attributes:
        name: name in tables and releases.
        synonyms: other words for it.
        translations: language code to word.
        is_open: the item shows none of the known classes.
    """

    name: str
    synonyms: tuple[str, ...] = ()
    translations: Mapping[str, str] = field(default_factory=dict)
    is_open: bool = False


@dataclass(frozen=True)
class Order:
    """How a published data set numbers and spells the answers.

    Attributes:
        name: name of the order.
        source: files that use it.
        base: number of the first answer.
        words: answer to the word of the data set, in its order.
    """

    name: str
    source: str
    base: int
    words: Mapping[str, str]

    @property
    def numbers(self) -> dict[str, int]:
        """Answer to its number."""
        return {answer: self.base + place for place, answer in enumerate(self.words)}


@dataclass(frozen=True)
class LabelSet:
    """A question and its answers.

    Attributes:
        name: name in tables, settings and releases.
        title: one line for people.
        question: the question asked.
        source: publication or origin.
        choose: ``one`` answer, ``several``, or an ``intensity`` for each.
        levels: the intensities, where ``choose`` is ``intensity``.
        answers: all answers, those of the open set last.
        orders: name to how a published data set numbers the answers.
        maps: other set to (answer here to answer there, empty where it has none).
        imports: other set to (answer there to answer here), for sets that do not know this one.
    """

    name: str
    title: str
    question: str
    source: str
    choose: str
    levels: tuple[int, ...]
    answers: tuple[Answer, ...]
    orders: Mapping[str, Order]
    maps: Mapping[str, Mapping[str, str]]
    imports: Mapping[str, Mapping[str, str]]

    @property
    def classes(self) -> tuple[str, ...]:
        """Answers that a distribution covers, in its order."""
        return tuple(answer.name for answer in self.answers if not answer.is_open)

    @property
    def open_set(self) -> tuple[str, ...]:
        """Answers outside the known classes."""
        return tuple(answer.name for answer in self.answers if answer.is_open)

    def canonical(self, word: str) -> str:
        """Return the answer that a word, synonym or translation stands for.

        Raises:
            KeyError: the word is unknown; the message lists the answers.
        """
        found = self._words.get(fold(word))
        if found is None:
            names = ", ".join(answer.name for answer in self.answers)
            raise KeyError(f"{word!r} is no answer of the label set {self.name}: {names}")
        return found

    @cached_property
    def _words(self) -> dict[str, str]:
        return {fold(word): answer.name for answer in self.answers for word in _words(answer)}

    def map_to(self, other: LabelSet) -> dict[str, str]:
        """Return answer here to answer there; an empty text where there is none.

        Raises:
            SettingsError: neither set declares a map.
        """
        if other.name == self.name:
            return {answer.name: answer.name for answer in self.answers}
        declared = self.maps.get(other.name) or other.imports.get(self.name)
        if declared is None:
            known = sorted({*self.maps, *(n for n in names() if self.name in load(n).imports)})
            raise SettingsError(
                f"No map from the label set {self.name} is declared",
                got=other.name,
                hint=f"declare one in the set's file; maps exist to {', '.join(known) or 'none'}",
            )
        return {answer.name: declared.get(answer.name, "") for answer in self.answers}

    def map_distribution(
        self, shares: Sequence[float], other: LabelSet
    ) -> tuple[np.ndarray, float, float]:
        """Carry a distribution over to another set by the declared map.

        Args:
            shares: shares in the order of ``classes``.
            other: the set to map to.

        Returns:
            Shares in the order of ``other.classes``, summing to 1 (zeros where nothing maps);
            the share that went to the other's open set; the share that has no answer there.
        """
        mapped, open_share, lost = np.zeros(len(other.classes)), 0.0, 0.0
        places = {name: place for place, name in enumerate(other.classes)}
        targets = self.map_to(other)
        for answer, share in zip(self.classes, shares, strict=True):
            target = targets[answer]
            if target in places:
                mapped[places[target]] += share
            elif target:
                open_share += share
            else:
                lost += share
        total = mapped.sum()
        return (mapped / total if total else mapped), open_share, lost


def fold(word: str) -> str:
    """Return a word without case, accents' variants, outer and doubled blanks."""
    return fold_name(word.replace("_", " ")).strip()


def names() -> tuple[str, ...]:
    """Return the names of the shipped label sets."""
    return data_files.names(FOLDER)


@cache
def load(name: str) -> LabelSet:
    """Return a shipped label set, or that of a file.

    Args:
        name: a name of ``names()``, an alias, or the path of a ``.toml`` file.

    Raises:
        SettingsError: no such set, or its file is unsound.
    """
    return read(data_files.find(FOLDER, ALIASES.get(name, name), what="label set"))


def read(path: Path) -> LabelSet:
    """Read a label set from a file.

    Raises:
        SettingsError: the file cannot be read, lacks a field or contradicts itself.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _unsound(path, f"cannot be read: {error}") from error
    known = {
        "name", "title", "question", "source", "choose", "levels",
        "answers", "open", "orders", "maps", "imports",
    }  # fmt: skip
    if strange := sorted(set(data) - known):
        raise _unsound(path, f"has unknown fields: {', '.join(strange)}")
    missing = [key for key in ("name", "question", "answers") if not data.get(key)]
    if missing:
        raise _unsound(path, f"lacks {', '.join(missing)}")
    try:
        label_set = _parse(data)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _unsound(path, f"does not have the shape of a label set: {error}") from error
    for fault in _faults(label_set):
        raise _unsound(path, fault)
    return label_set


def _parse(data: dict[str, Any]) -> LabelSet:
    def answers(key: str) -> Iterator[Answer]:
        for row in data.get(key, ()):
            row = {"name": row} if isinstance(row, str) else row
            yield Answer(
                str(row["name"]),
                tuple(map(str, row.get("synonyms", ()))),
                {str(k): str(v) for k, v in row.get("translations", {}).items()},
                is_open=key == "open",
            )

    orders = {
        name: Order(name, str(row.get("source", "")), int(row.get("base", 0)), dict(row["words"]))
        for name, row in data.get("orders", {}).items()
    }
    return LabelSet(
        name=str(data["name"]),
        title=str(data.get("title", data["name"])),
        question=str(data["question"]),
        source=str(data.get("source", "")),
        choose=str(data.get("choose", "one")),
        levels=tuple(map(int, data.get("levels", ()))),
        answers=(*answers("answers"), *answers("open")),
        orders=orders,
        maps={name: dict(row) for name, row in data.get("maps", {}).items()},
        imports={name: dict(row) for name, row in data.get("imports", {}).items()},
    )


def _words(answer: Answer) -> set[str]:
    return {answer.name, *answer.synonyms, *answer.translations.values()}


def _faults(label_set: LabelSet) -> Iterator[str]:
    """Yield what contradicts itself in a label set."""
    if not label_set.name.isidentifier():
        yield f"is named {label_set.name!r}; use letters, digits and _"
    if label_set.choose not in CHOOSE:
        yield f"says choose = {label_set.choose!r}; use one of {', '.join(CHOOSE)}"
    if (label_set.choose == "intensity") != bool(label_set.levels):
        yield "needs levels exactly where choose is 'intensity'"
    taken: dict[str, str] = {}
    own = {answer.name for answer in label_set.answers}
    for answer in label_set.answers:
        if not fold(answer.name):
            yield "has an answer without a name"
        for word in sorted({fold(word) for word in _words(answer)}):
            other = taken.setdefault(word, answer.name)
            # Two answers of one name share their words: the first branch cannot see it.
            if other != answer.name:
                yield f"gives the word {word!r} to {other!r} and to {answer.name!r}"
    if len(own) < len(label_set.answers):
        yield "has two answers of one name"
    for order in label_set.orders.values():
        if strange := set(order.words) - own:
            yield f"numbers unknown answers in orders.{order.name}: {', '.join(sorted(strange))}"
        if len(set(order.words.values())) < len(order.words):
            yield f"has one word for two answers in orders.{order.name}"
    for other_name, pairs in label_set.maps.items():
        if strange := set(pairs) - own:
            yield f"maps unknown answers in maps.{other_name}: {', '.join(sorted(strange))}"
    for other_name, pairs in label_set.imports.items():
        if strange := set(filter(None, pairs.values())) - own:
            yield f"maps to unknown answers in imports.{other_name}: {', '.join(sorted(strange))}"


def _unsound(path: Path, fault: str) -> SettingsError:
    return data_files.unsound(path, fault, what="label set")
