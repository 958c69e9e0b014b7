"""Carry labels over to the classes of a published data set."""

from __future__ import annotations

import csv
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from warehouse import label_sets
from warehouse.errors import ReleaseError, RisoriusError, SettingsError
from warehouse.releases.layouts.files import array_of
from warehouse.vocabulary import EXPRESSIONS, canonical

SOURCE_SET = "expressions8"
_TIE = 1e-6
_OPEN_SHARE = 0.5

Left = tuple[pl.Expr, str]


@dataclass(frozen=True)
class Classes:
    """The classes of a reader, and which expression stands for which.

    Attributes:
        name: ``<label set>:<order>``, or the path of the user's map.
        words: class words in the reader's order.
        base: number of the first class.
        of: each of the eight expressions to a word; empty where the reader has no such class.
        other: word for faces outside the expressions, or empty.
        target: label set of the words; empty for a user's map.
        spelling: answer of the target to its word.
        answers: what the soft labels are over, in their order.
    """

    name: str
    words: tuple[str, ...]
    base: int
    of: Mapping[str, str]
    other: str = ""
    target: str = ""
    spelling: Mapping[str, str] = field(default_factory=dict)
    answers: tuple[str, ...] = EXPRESSIONS

    def for_set(self, name: str) -> Classes | None:
        """Return the classes for labels of another set; None without a map."""
        try:
            source = label_sets.load(name)
            mapped = _carried(source, label_sets.load(self.target or SOURCE_SET))
        except SettingsError:
            return None
        words = self.spelling if self.target else self.of
        of = {answer: words.get(mapped[answer], "") for answer in source.classes}
        return replace(self, answers=source.classes, of=of)

    @property
    def numbers(self) -> dict[str, int]:
        """Class word to its number."""
        return {word: self.base + place for place, word in enumerate(self.words)}

    def facts(self) -> dict[str, Any]:
        """Return what ``source.json`` states about the classes."""
        return {
            "name": self.name,
            "classes": self.numbers,
            "map": dict(self.of),
            "other": self.other or None,
        }

    def shares(self, soft_labels: np.ndarray) -> np.ndarray:
        """Return float64[n, k] over ``words``, each row summing to 1.

        Args:
            soft_labels: float[n, 8]; NaN where there is none.

        Returns:
            Zeros where every vote went to expressions without a class here, NaN for no label.
        """
        mapped = self.mass(soft_labels)
        total = mapped.sum(axis=1, keepdims=True)
        empty = np.where(np.isnan(mapped), mapped, 0)
        shares: np.ndarray = np.divide(mapped, total, out=empty, where=total > 0)
        return shares

    def mass(self, soft_labels: np.ndarray) -> np.ndarray:
        """Return float64[n, k]: as ``shares``, without what has no class."""
        mapped: np.ndarray = soft_labels.astype(np.float64) @ self._matrix()
        return mapped

    def _matrix(self) -> np.ndarray:
        matrix = np.zeros((len(self.answers), len(self.words)))
        for row, answer in enumerate(self.answers):
            if word := self.of.get(answer, ""):
                matrix[row, self.words.index(word)] = 1
        return matrix

    def label(self, faces: pl.DataFrame) -> pl.DataFrame:
        """Add ``word, number`` and ``left_out``, the reason for no class.

        Shares of expressions that merge here are added. The largest share decides. A face whose
        largest share has no class here is left out, not given its second label.

        Args:
            faces: ``soft_label`` and ``open_set_share``.
        """
        soft = array_of(faces["soft_label"], len(self.answers))
        dropped = [row for row, name in enumerate(self.answers) if not self.of.get(name)]
        shares = np.concatenate([soft @ self._matrix(), soft[:, dropped]], axis=1)
        filled = np.nan_to_num(shares, nan=-1.0)
        place = filled.argmax(axis=1)
        top = np.sort(filled, axis=1)
        tied = top[:, -1] - top[:, -2] <= _TIE if shares.shape[1] > 1 else np.zeros(len(soft), bool)
        k = len(self.words)
        reasons: list[str | None] = []
        words: list[str | None] = []
        opens = faces["open_set_share"].fill_null(0.0).to_list()
        for row in range(len(soft)):
            word, reason = None, None
            if opens[row] > _OPEN_SHARE or (np.isnan(soft[row]).any() and opens[row] > 0):
                word, reason = (self.other, None) if self.other else (None, "open_set")
            elif np.isnan(soft[row]).any():
                reason = "no_label"
            elif tied[row]:
                reason = "tied"
            elif place[row] >= k:
                reason = f"no_class_for_{self.answers[dropped[place[row] - k]]}"
            else:
                word = self.words[place[row]]
            words.append(word)
            reasons.append(reason)
        return faces.with_columns(
            word=pl.Series(words, dtype=pl.String),
            left_out=pl.Series(reasons, dtype=pl.String),
        ).with_columns(
            number=pl.col("word").replace_strict(self.numbers, default=None, return_dtype=pl.Int64)
        )


def _carried(source: label_sets.LabelSet, target: label_sets.LabelSet) -> Mapping[str, str]:
    """Return answer to answer by a map, or by two over the expressions."""
    try:
        return source.map_to(target)
    except SettingsError:
        between = label_sets.load(SOURCE_SET)
        first, second = source.map_to(between), between.map_to(target)
        return {answer: second.get(middle, "") for answer, middle in first.items()}


def read(
    default: str, *, label_set: str | None, map_file: str | None, faces: bool = True
) -> Classes:
    """Return the classes of a layout, a label set or a user's map.

    Args:
        default: ``<label set>:<order>`` of the layout.
        label_set: ``<label set>`` or ``<label set>:<order>``. Without an order the layout's own is
            taken if the set has it, else the order of the answers, from 0.
        map_file: TOML, JSON or CSV; wins over ``label_set``.
        faces: labels are of faces, so the set must be reached from the eight expressions.

    Raises:
        ReleaseError: there is no such set, order or file, or the map loses a class.
    """
    if map_file is not None:
        return _read_map(Path(map_file).expanduser())
    named, _, order = (label_set or default).partition(":")
    _, _, own_order = default.partition(":")
    try:
        found = label_sets.load(named)
        mapped = _mapped(found, faces=faces)
    except RisoriusError as error:
        raise ReleaseError(error.problem, got=error.got, hint=error.hint) from error
    if not order and own_order in found.orders:
        order = own_order
    if order and order not in found.orders:
        raise ReleaseError(
            f"The label set {named} has no such order",
            got=order,
            hint=f"use one of {', '.join(sorted(found.orders)) or 'none: leave the order out'}",
        )
    if order:
        words, base = dict(found.orders[order].words), found.orders[order].base
    else:
        words, base = {name: name for name in found.classes}, 0
    return Classes(
        name=f"{found.name}:{order}" if order else found.name,
        words=tuple(words.values()),
        base=base,
        of={name: words.get(mapped[name], "") for name in EXPRESSIONS},
        other=words.get("unknown", ""),
        target=found.name,
        spelling=words,
    )


def _mapped(found: label_sets.LabelSet, *, faces: bool) -> Mapping[str, str]:
    try:
        return label_sets.load(SOURCE_SET).map_to(found)
    except SettingsError:
        if faces:
            raise
        return dict.fromkeys(EXPRESSIONS, "")


def _read_map(path: Path) -> Classes:
    """Read a user's map from expression to class word.

    TOML or JSON: ``base`` and a table ``map``. CSV: columns ``label, class``. An empty class drops
    the expression, and every expression must be named, so that none is lost unnoticed. Classes are
    numbered in the order in which the file names them.
    """
    try:
        base, pairs = _pairs(path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ReleaseError(
            f"The label map {path} cannot be read",
            got=str(error),
            hint="write TOML with a table [map] of expression = class, or CSV with the columns "
            "label, class",
        ) from error
    found: dict[str, str] = {}
    strange = []
    for label, word in pairs.items():
        try:
            found[canonical(label)] = word
        except KeyError:
            strange.append(label)
    lost = [name for name in EXPRESSIONS if name not in found]
    if strange or lost:
        raise ReleaseError(
            f"The label map {path.name} does not fit the labels of the release",
            got="; ".join(
                f"{text} {', '.join(names)}"
                for text, names in (("unknown:", strange), ("without a class:", lost))
                if names
            ),
            hint="name each of the eight expressions; an empty class drops one",
        )
    words = tuple(dict.fromkeys(word for name, word in found.items() if word and name != "unknown"))
    if not words:
        raise ReleaseError(
            f"The label map {path.name} drops every class", got="no class", hint="name one"
        )
    other = found.get("unknown", "")
    return Classes(
        name=path.name,
        words=(*words, *([other] if other and other not in words else [])),
        base=base,
        of={name: found[name] for name in EXPRESSIONS},
        other=other,
    )


def _pairs(path: Path) -> tuple[int, dict[str, str]]:
    text = path.read_text(encoding="utf-8-sig")
    if path.suffix == ".csv":
        rows = list(csv.DictReader(text.splitlines()))
        return 0, {row["label"].strip(): row["class"].strip() for row in rows}
    data = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    return int(data.get("base", 0)), {str(k): str(v) for k, v in dict(data["map"]).items()}
