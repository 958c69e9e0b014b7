"""Read pictures that lie in folders named after their class."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from pipeline.importers import own
from pipeline.importers.samples import (
    IMAGES,
    Dataset,
    Folder,
    Format,
    Sample,
    Vote,
    split_of,
)
from pipeline.importers.words import Words

_FOLD = re.compile(r"^fold_?(\d+)$")


def _places(folder: Folder) -> list[tuple[str | None, Path, str]]:
    """Return split, folder and class name of every class folder."""
    tops = [Path(one) for one in folder.folders if len(Path(one).parts) == 1]
    folds = sorted(str(top) for top in tops if _FOLD.match(top.name))
    if folds:
        # Each fold holds all pictures: one of them is read.
        root = folder.path / folds[0]
        return _below(root, [root / one for one in sorted(os.listdir(root))])
    return _below(folder.path, [folder.path / top for top in tops])


def _below(root: Path, tops: list[Path]) -> list[tuple[str | None, Path, str]]:
    found: list[tuple[str | None, Path, str]] = []
    for top in tops:
        if not top.is_dir():
            continue
        split = split_of(top.name)
        if split is None:
            found.append((None, top, top.name))
        else:
            inner = sorted(one for one in top.iterdir() if one.is_dir() and one.name[0] != ".")
            found += [(split, one, one.name) for one in inner]
    return found


def _identify(folder: Folder) -> str | None:
    words = Words("expressions8")
    classes = {name for _, path, name in _places(folder) if words.answer(name) and _has(path)}
    if len(classes) < 2:
        return None
    return f"its folders are named {', '.join(sorted(classes)[:3])}"


def _has(folder: Path) -> bool:
    with os.scandir(folder) as inside:
        return any(one.name.lower().endswith(IMAGES) for one in inside)


def _read(dataset: Dataset) -> Iterator[Sample]:
    stated = own.read(dataset.path)
    if any(_FOLD.match(one) for one in dataset.folder.folders):
        dataset.notes.append("the folds hold the same pictures: the first was read")
    for split, folder, name in _places(dataset.folder):
        if name == "images" and stated is None:
            dataset.leave("folders that are named after no class", name)
            continue
        for top, folders, files in os.walk(folder):
            folders[:] = sorted(one for one in folders if not one.startswith("."))
            for file in sorted(files):
                if file.lower().endswith(IMAGES) and not file.startswith("."):
                    path = Path(top) / file
                    yield Sample(
                        dataset.name_of(path), (Vote(labels=(name,)),), path=path, split=split
                    )  # fmt: skip


FORMAT = Format(
    "imagefolder",
    "class folders, with or without folders of splits above them",
    _identify,
    _read,
    labels="expressions8",
    layouts=("imagefolder",),
)
