"""Write question and answer pairs about faces: turns, llava, swift, r1."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl

from warehouse.releases.layouts.core import Export, Layout
from warehouse.releases.layouts.unit_labels import with_units
from warehouse.releases.schema import SPLITS

_QUESTIONS = Path(__file__).with_name("questions.toml")
_LETTERS = "ABCDEFGHIJKL"

Entry = Callable[[Export, dict[str, Any]], dict[str, Any]]


def questions() -> dict[str, str]:
    """Return the shipped questions by name."""
    return tomllib.loads(_QUESTIONS.read_text(encoding="utf-8"))


def _write(export: Export, entry: Entry, file: str) -> None:
    rows = with_units(export, export.labelled())
    rows = rows.with_columns(path=pl.format("images/{}{}", "stem", "suffix"))
    for split in SPLITS:
        part = rows.filter(pl.col("split") == split)
        if part.height:
            found = [entry(export, row) for row in part.iter_rows(named=True)]
            export.json(file.format(split=split), found)
    export.pictures(rows, size=export.options.size)
    export.write_folds(rows)


def write_turns(export: Export) -> None:
    """Write ``<split>.json`` of role and content turns, for Emotion-Qwen."""
    _write(export, _turns, "{split}.json")


def write_llava(export: Export) -> None:
    """Write ``<split>.json`` of human and gpt turns."""
    _write(export, _llava, "{split}.json")


def write_swift(export: Export) -> None:
    """Write ``emotion/<split>.json`` of messages answered by a letter."""
    _write(export, _swift, "emotion/{split}.json")


def write_r1(export: Export) -> None:
    """Write ``FaVChat-<split>.json`` of multiple-choice problems."""
    _write(export, _r1, "FaVChat-{split}.json")


def _turns(_: Export, row: dict[str, Any]) -> dict[str, Any]:
    ask = f"<image>\n{questions()['emotion']}"
    turns = [{"role": "user", "content": ask}, {"role": "assistant", "content": row["word"]}]
    return {"id": row["stem"], "image": row["path"], "conversations": turns}


def _llava(_: Export, row: dict[str, Any]) -> dict[str, Any]:
    ask = f"<image>\n{questions()['emotion']}"
    turns = [{"from": "human", "value": ask}, {"from": "gpt", "value": row["word"]}]
    return {"id": row["stem"], "image": row["path"], "conversations": turns}


def _options(export: Export) -> list[str]:
    pairs = zip(_LETTERS, export.classes.words, strict=False)
    return [f"{letter}. {word}" for letter, word in pairs]


def _letter(export: Export, row: dict[str, Any]) -> str:
    return _LETTERS[export.classes.words.index(row["word"])]


def _swift(export: Export, row: dict[str, Any]) -> dict[str, Any]:
    ask = questions()["choice"].format(options=" ".join(_options(export)))
    messages = [{"role": "user", "content": f"<image>{ask}"},
                {"role": "assistant", "content": _letter(export, row)}]  # fmt: skip
    return {"messages": messages, "images": [export.absolute(row["path"])]}


def _r1(export: Export, row: dict[str, Any]) -> dict[str, Any]:
    return {
        "problem_id": row["stem"],
        "problem": questions()["emotion"],
        "problem_type": "multiple choice",
        "options": _options(export),
        "data_type": "image",
        "path": row["path"],
        "process": "",
        "solution": f"<answer>{_letter(export, row)}</answer>",
        "facial_emotion": row["word"],
        "facial_action": ", ".join(f"AU{unit}" for unit in row["units"]),
    }


TURNS = Layout("turns", "role and content turns of Emotion-Qwen", write_turns)
LLAVA = Layout("llava", "human and gpt turns", write_llava)
SWIFT = Layout("swift", "ms-swift messages with a letter as answer", write_swift)
R1 = Layout("r1", "multiple-choice problems of R1-style trainers", write_r1)
