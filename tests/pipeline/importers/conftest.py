"""Read a folder with an importer, without looking for faces."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pipeline import import_dataset, importers
from pipeline.importers.samples import Dataset, Folder, Options
from pipeline.importers.spool import Spooled
from tests.warehouse.layouts.conftest import exported, layout_home, released
from warehouse.storage.home import Home

__all__ = ["exported", "layout_home", "released"]


@dataclass
class Read:
    """A dataset that was read into an empty home."""

    format: str
    why: str
    dataset: Dataset
    spooled: Spooled
    home: Home

    @property
    def said(self) -> str:
        return "\n".join(self.dataset.described())

    def rows(self) -> list[dict[str, Any]]:
        return [row for frame in self.spooled.votes for row in frame.iter_rows(named=True)]

    def labels(self) -> dict[str, list[str]]:
        """File to the answers of its votes."""
        found: dict[str, list[str]] = {}
        for row in self.rows():
            found.setdefault(row["file_name"], []).append("+".join(row["answers"]))
        return {name: sorted(answers) for name, answers in found.items()}

    def answers(self) -> list[str]:
        """Answers of all votes."""
        return [answer for answers in self.labels().values() for answer in answers]

    def splits(self) -> dict[str, str]:
        """File to its declared split."""
        lines, splits = self.spooled.lines, self.spooled.splits
        return {lines[uri]["file_name"]: split for uri, split in splits.items()}


Reader = Callable[..., Read]


@pytest.fixture
def read(tmp_path: Path) -> Reader:
    """Return ``read(folder, format, **options)``."""

    def read(folder: Path, format_name: str = "auto", **options: Any) -> Read:
        home = Home.at(tmp_path / f"home{len(list(tmp_path.glob('home*')))}")
        found, why = importers.choose(Folder(folder), format_name)
        dataset, spooled = import_dataset.spooled(
            home, folder, found, Options(**options), batch="set"
        )
        return Read(found.name, why, dataset, spooled, home)

    return read


def picture(path: Path, level: int = 90, *, side: int = 48) -> Path:
    """Write a grey picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((side, side, 3), level, np.uint8))
    return path


def written(path: Path, *lines: str) -> Path:
    """Write lines of text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
