"""Read what ``risorius release export`` states about an exported folder."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.importers import text
from warehouse.errors import SettingsError

_STATED = "source.json"
_TERMS = "licences.csv"


@dataclass(frozen=True)
class Export:
    """Facts of an exported folder.

    Attributes:
        layout, dialect: see ``docs/layouts.md``.
        labels: ``<label set>:<order>``, or empty for a map of the user's own.
        numbers: number of a class to its word.
        facts: file to ``subject_id, licence, consent``.
    """

    layout: str
    dialect: str | None = None
    labels: str = ""
    numbers: dict[str, str] = field(default_factory=dict)
    facts: dict[str, dict[str, str]] = field(default_factory=dict)


def read(folder: Path) -> Export | None:
    """Return the facts of an export; None for any other folder.

    Raises:
        SettingsError: the file of an export is damaged.
    """
    path = folder / _STATED
    if not path.is_file():
        return None
    try:
        stated: Any = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(stated, dict) or "layout" not in stated:
            return None
        labels = stated.get("labels") or {}
        name = str(labels.get("name") or "")
        words = dict(labels.get("classes") or {})
        of = dict(labels.get("map") or {})
        # A class into which several expressions merged cannot be separated again.
        sources = {word: [one for one in of if of[one] == word] for word in words}
        own = name.endswith((".toml", ".json", ".csv"))
        numbers = {
            str(number): sources[word][0] if own and len(sources[word]) == 1 else word
            for word, number in words.items()
        }
        return Export(
            str(stated["layout"]), stated.get("dialect"), "" if own else name, numbers,
            _terms(folder / _TERMS),
        )  # fmt: skip
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise SettingsError(
            f"{_STATED} of the export cannot be read",
            got=str(error),
            hint="export the release again",
        ) from None


def _terms(path: Path) -> dict[str, dict[str, str]]:
    if not path.is_file():
        return {}
    return {
        row["file"]: {
            name: row[name] for name in ("subject_id", "licence", "consent") if row.get(name)
        }
        for _, row in text.rows(path, ("file",))
    }
