"""Read the lists of RAF-DB (basic, compound) and the label file of ExpW."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from pipeline.importers import text
from pipeline.importers.samples import Dataset, Folder, Format, Sample, Vote, foreign, split_of

_LISTS = ("list_patition_label.txt", "list_partition_label.txt")
"""Both spellings are in use; the first is the published one."""

_LATENT = "label.txt"
_COMPOUNDS = (
    "happily surprised", "happily disgusted", "sadly fearful", "sadly angry", "sadly surprised",
    "sadly disgusted", "fearfully angry", "fearfully surprised", "angrily surprised",
    "angrily disgusted", "disgustedly surprised",
)  # fmt: skip
"""Numbers 1 to 11 of the compound list."""

_PLACES = (
    ("Image/aligned", "_aligned.jpg"), ("aligned", "_aligned.jpg"), ("Image/aligned", ".jpg"),
    ("aligned", ".jpg"), ("Image/original", ".jpg"), ("original", ".jpg"), ("Image", ".jpg"),
    ("Images", ".JPG"), ("", "_aligned.jpg"), ("", ".jpg"),
)  # fmt: skip
_EXPW = "label.lst"


def _lists(folder: Folder) -> list[Path]:
    latent = [path for path in folder.find(_LATENT) if path.parent.name.casefold() == "emolabel"]
    return folder.find(*_LISTS) or latent


def _identify(folder: Folder) -> str | None:
    found = _lists(folder)
    return f"{found[0].name} lists RAF-DB pictures and numbers" if found else None


def _read(dataset: Dataset) -> Iterator[Sample]:
    for path in _lists(dataset.folder):
        yield from _listed(dataset, path)


def _listed(dataset: Dataset, path: Path) -> Iterator[Sample]:
    entries = list(_entries(path))
    # Numbers above 7 exist in the compound list only.
    compound = any(number > 7 for _, number in entries) or "compound" in str(
        path.relative_to(dataset.path)
    ).casefold()  # fmt: skip
    extra = path.with_name("open.txt")
    if extra.is_file():
        entries += list(_entries(extra))
    top = path.parent.parent if path.parent.name.casefold() == "emolabel" else path.parent
    for name, number in entries:
        label = str(number)
        if compound and 1 <= number <= len(_COMPOUNDS):
            label = _COMPOUNDS[number - 1]
        elif number == 0:
            label = "unknown"
        stem = PurePosixPath(name).stem.removesuffix("_aligned")
        file = next(
            (one for place, suffix in _PLACES
             if (one := dataset.folder.locate(f"{place}/{stem}{suffix}".lstrip("/"), top))), None
        )  # fmt: skip
        yield Sample(
            dataset.name_of(file) if file else name,
            (Vote(labels=(label,)),),
            path=file,
            split=split_of(stem.split("_")[0]),
        )


def _entries(path: Path) -> Iterator[tuple[str, int]]:
    for line, content in text.lines(path):
        parts = content.split()
        if len(parts) != 2:
            raise foreign(path, got=f"line {line}: {content[:80]!r}", what="a RAF-DB list")
        yield parts[0], text.integer(parts[1], path, line, "label")


def _identify_expw(folder: Folder) -> str | None:
    for path in folder.find(_EXPW):
        first = next(text.lines(path), (0, ""))[1]
        if len(first.split()) == 8:
            return f"{path.name} holds a picture, a box and an expression per line"
    return None


def _read_expw(dataset: Dataset) -> Iterator[Sample]:
    for table in dataset.folder.find(_EXPW):
        roots = [one for name in ("origin", "image", "images") if
                 (one := dataset.folder.folder(name))]  # fmt: skip
        for line, content in text.lines(table):
            cells = content.split()
            if len(cells) != 8:
                raise foreign(table, got=f"line {line}: {len(cells)} parts, 8 expected",
                              what="the label file of ExpW")  # fmt: skip
            top, left, right, bottom = (
                text.real(cell, table, line, "box") for cell in cells[2:6]
            )  # fmt: skip
            path = dataset.folder.locate(cells[0], *roots, table.parent, dataset.path)
            yield Sample(
                dataset.name_of(path) if path else cells[0],
                (Vote(labels=(cells[7],)),),
                path=path,
                box=(left, top, right - left, bottom - top),
            )


RAF = Format(
    "raf",
    "RAF-DB lists, basic and compound, with their pictures",
    _identify,
    _read,
    labels="basic7:raf",
    layouts=("raf",),
)
EXPW = Format(
    "expw",
    "ExpW label.lst: several faces per picture, each with its box",
    _identify_expw,
    _read_expw,
    labels="basic7:fer2013",
)
