"""Read lists of pictures and labels beside the pictures."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.importers import text
from pipeline.importers.samples import (
    IMAGES,
    Dataset,
    Folder,
    Format,
    Sample,
    Vote,
    foreign,
    split_of,
)

_MANIFEST = ["image_path", "label_name", "label_id"]
_BENCHMARK = ("dataset", "user_id", "name", "class")
_IDS, _LABELS = "image_ids.txt", "class_labels.txt"


def listed(dataset: Dataset, name: str, label: str, split: str | None, *roots: Path) -> Sample:
    """Return a sample of a listed picture; absolute paths count by their end."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    absolute = name.startswith("/") or (len(name) > 1 and name[1] == ":")
    names = ["/".join(parts[start:]) for start in range(1, len(parts))] if absolute else [name]
    path = next(
        (one for name in names if (one := dataset.folder.locate(name, *roots, dataset.path))), None
    )
    return Sample(
        dataset.name_of(path) if path else "/".join(parts[-2:]) if absolute else name,
        (Vote(labels=(label,)),),
        path=path,
        split=split,
    )


# Text lists


def _lists(folder: Folder) -> list[Path]:
    return [
        path for path in folder.ending(".txt")
        if path.parent == folder.path and split_of(path.stem) and _is_list(path)
    ]  # fmt: skip


def _is_list(path: Path) -> bool:
    _, first = next(text.lines(path), (0, ""))
    name, _, number = first.rpartition(" ")
    return name.lower().endswith(IMAGES) and number.isdigit()


def _identify_list(folder: Folder) -> str | None:
    found = _lists(folder)
    return f"{found[0].name} has a picture and a number per line" if found else None


def _read_list(dataset: Dataset) -> Iterator[Sample]:
    for path in _lists(dataset.folder):
        for line, content in text.lines(path):
            name, _, number = content.rpartition(" ")
            if not name:
                raise foreign(path, got=f"line {line}: {content[:80]!r}", what="a list of pictures")
            yield listed(dataset, name, number, split_of(path.stem), path.parent)


# Tables of paths


def _manifests(folder: Folder) -> list[Path]:
    found = [path for path in folder.ending(".csv") if text.header(path) == _MANIFEST]
    return [path for path in found if split_of(path.stem.removeprefix("labels_"))] or found


def _identify_manifest(folder: Folder) -> str | None:
    found = _manifests(folder)
    return f"{found[0].name} has the columns {', '.join(_MANIFEST)}" if found else None


def _read_manifest(dataset: Dataset) -> Iterator[Sample]:
    for path in _manifests(dataset.folder):
        split = split_of(path.stem.removeprefix("labels_"))
        for _, row in text.rows(path, _MANIFEST):
            yield listed(dataset, row["image_path"], row["label_name"], split)


def _benchmarks(folder: Folder) -> list[Path]:
    return [path for path in folder.ending(".csv") if text.header(path)[:4] == list(_BENCHMARK)]


def _identify_benchmark(folder: Folder) -> str | None:
    found = _benchmarks(folder)
    return f"{found[0].name} begins with the columns {', '.join(_BENCHMARK)}" if found else None


def _read_benchmark(dataset: Dataset) -> Iterator[Sample]:
    for path in _benchmarks(dataset.folder):
        for _, row in text.rows(path, _BENCHMARK):
            found = listed(dataset, row["name"], row["class"], split_of(row.get("subset")))
            yield Sample(**{**vars(found), "subject": row["user_id"] or None})


# Text folds


def _folds(folder: Folder) -> list[Path]:
    return [path for path in folder.find(_LABELS) if (path.parent / _IDS).is_file()]


def _identify_folds(folder: Folder) -> str | None:
    found = _folds(folder)
    return f"{folder_name(found[0])} holds {_IDS} and {_LABELS}" if found else None


def folder_name(path: Path) -> str:
    """Return the name of the folder of a file."""
    return path.parent.name + "/"


def _read_folds(dataset: Dataset) -> Iterator[Sample]:
    for path in _folds(dataset.folder):
        words = _class_ids(path.parent.parent / "class_id.yaml")
        for line, content in text.lines(path):
            name, _, number = content.rpartition(",")
            if not name:
                raise foreign(path, got=f"line {line}: {content[:80]!r}", what="a list of labels")
            yield listed(
                dataset, name, words.get(number, number), split_of(path.parent.name)
            )  # fmt: skip


def _class_ids(path: Path) -> dict[str, str]:
    """Return number to class word of ``class_id.yaml``."""
    if not path.is_file():
        return {}
    pairs = [content.rpartition(":") for _, content in text.lines(path)]
    return {number.strip(): word.strip().strip("'\"") for word, _, number in pairs}


# EmoSet


def _entries(path: Path) -> list[list[Any]]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found, list) and all(
            isinstance(one, list) and 3 <= len(one) <= 4 and all(isinstance(x, str) for x in one)
            for one in found
        ):
            return found
    except (OSError, ValueError):
        pass
    raise foreign(path, got="another structure", what="a list of [emotion, picture, annotation]")


def _attribute_files(folder: Folder) -> list[Path]:
    if not (folder.path / "info.json").is_file():
        return []
    return [path for path in folder.ending(".json") if path.parent == folder.path
            and split_of(path.stem)]  # fmt: skip


def _identify_attributes(folder: Folder) -> str | None:
    found = _attribute_files(folder)
    return f"info.json stands beside {found[0].name}, as in EmoSet" if found else None


def _read_attributes(dataset: Dataset) -> Iterator[Sample]:
    for path in _attribute_files(dataset.folder):
        for entry in _entries(path):
            picture = entry[-2] if len(entry) > 2 else ""
            yield listed(dataset, picture, entry[0], split_of(path.stem))


LIST = Format(
    "list",
    "a text file of pictures and class numbers per split",
    _identify_list,
    _read_list,
    labels="basic7:affectnet7",
    layouts=("list",),
)
MANIFEST = Format(
    "manifest",
    "a csv of paths, label names and numbers",
    _identify_manifest,
    _read_manifest,
    layouts=("manifest",),
)
BENCHMARK = Format(
    "labels-csv",
    "the 13 columns of FER benchmarks: subject, picture, class, subset",
    _identify_benchmark,
    _read_benchmark,
    labels="basic6:ekman6",
    layouts=("labels-csv",),
)
FOLDS = Format(
    "fer-txt",
    "text folds: image_ids.txt, class_labels.txt, class_id.yaml",
    _identify_folds,
    _read_folds,
    labels="basic7:fold7",
    layouts=("fer-txt",),
)
ATTRIBUTES = Format(
    "attributes",
    "the EmoSet tree of pictures and annotations",
    _identify_attributes,
    _read_attributes,
    layouts=("attributes",),
)
