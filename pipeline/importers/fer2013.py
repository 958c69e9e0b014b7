"""Read ``fer2013.csv``, whose cells hold the pixels, and the FER+ votes."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

import numpy as np

from pipeline.importers import text
from pipeline.importers.samples import (
    Dataset,
    Folder,
    Format,
    Sample,
    Vote,
    foreign,
    seats,
    split_of,
)
from warehouse.errors import SettingsError
from warehouse.vocabulary import ANSWERS

_VOTES = "fer2013new.csv"
_LABELS = "label.csv"
_FOLDERS = ("FER2013Train", "FER2013Valid", "FER2013Test")


def _pixel_tables(folder: Folder) -> list[Path]:
    return [path for path in folder.ending(".csv") if "pixels" in text.header(path)]


def _identify(folder: Folder) -> str | None:
    tables = [path for path in _pixel_tables(folder) if "emotion" in text.header(path)]
    return f"{tables[0].name} has the columns emotion and pixels" if tables else None


def _read(dataset: Dataset) -> Iterator[Sample]:
    tables = [path for path in _pixel_tables(dataset.folder) if "emotion" in text.header(path)]
    if not tables:
        raise SettingsError(
            "There is no table with the columns emotion and pixels",
            got=str(dataset.path),
            hint="name the folder of fer2013.csv",
        )
    if len(tables) > 1:
        others = ", ".join(path.name for path in tables[1:])
        dataset.notes.append(f"{tables[0].name} was read; {others} hold pictures too and were not")
    for number, row, data in _pictures(tables[0], ("emotion", "pixels")):
        yield Sample(
            f"fer{number:07d}.png",
            (Vote(labels=(row["emotion"],)),),
            data=data,
            split=split_of(row.get("usage")),
        )


def _pictures(path: Path, needed: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str], bytes]]:
    """Yield number, cells and encoded picture of each row."""
    from warehouse.storage.media import encode

    for number, (line, row) in enumerate(text.rows(path, needed)):
        try:
            values = np.array(row["pixels"].split(), dtype=np.uint8)
        except (ValueError, OverflowError):
            raise foreign(path, got=f"line {line}: pixels that are no bytes", what="fer2013.csv") \
                from None  # fmt: skip
        side = round(values.size**0.5)
        if not side or side * side != values.size:
            raise foreign(path, got=f"line {line}: {values.size} pixels", what="fer2013.csv")
        gray = values.reshape(side, side)
        yield number, row, encode(np.repeat(gray[:, :, None], 3, axis=2), ".png")


def _identify_ferplus(folder: Folder) -> str | None:
    if folder.find(_VOTES):
        return f"{_VOTES} holds the votes of ten raters"
    names = [name for name in _FOLDERS if folder.folder(name)]
    if names and folder.find(_LABELS):
        return f"{names[0]}/{_LABELS} holds votes as counts"
    return None


def _read_ferplus(dataset: Dataset) -> Iterator[Sample]:
    found = dataset.folder.find(_VOTES)
    folders = [one for name in _FOLDERS if (one := dataset.folder.folder(name))]
    if not found:
        for folder in folders:
            yield from _label_csv(dataset, folder)
        return
    tables = [path for path in _pixel_tables(dataset.folder) if path not in found]
    if tables:
        yield from _with_pixels(found[0], tables[0])
    else:
        yield from _with_files(dataset, found[0], folders)


def _with_pixels(votes: Path, pixels: Path) -> Iterator[Sample]:
    """Join the rows of FER+ with those of ``fer2013.csv``, one to one."""
    pairs = zip_longest(text.rows(votes, ("neutral", "nf")), _pictures(pixels, ("pixels",)))
    for (line, row), (number, _, data) in _whole(pairs, votes, pixels):
        name = row.get("image_name") or f"fer{number:07d}.png"
        yield _counted(name, row, votes, line, data=data)


def _whole(pairs: Iterator[tuple], votes: Path, pixels: Path) -> Iterator[tuple]:
    for one, other in pairs:
        if one is None or other is None:
            short = votes if one is None else pixels
            raise foreign(
                short, got=f"fewer rows than {(pixels if one is None else votes).name}",
                what=f"the partner of {(pixels if one is None else votes).name}",
            )  # fmt: skip
        yield one, other


def _with_files(dataset: Dataset, votes: Path, folders: list[Path]) -> Iterator[Sample]:
    unnamed = 0
    for line, row in text.rows(votes, ("image_name", "neutral", "nf")):
        if not row["image_name"]:
            unnamed += 1
            continue
        path = dataset.folder.locate(row["image_name"], *folders, votes.parent, dataset.path)
        name = dataset.name_of(path) if path else row["image_name"]
        yield _counted(name, row, votes, line, path=path)
    if unnamed:
        dataset.notes.append(
            f"{unnamed} rows of {votes.name} name no picture; put fer2013.csv beside it to have "
            "their pixels"
        )


def _counted(
    name: str,
    row: dict[str, str],
    votes: Path,
    line: int,
    *,
    path: Path | None = None,
    data: bytes | None = None,
) -> Sample:
    keys = [*ANSWERS[:-1], "nf"]
    counts = {key: text.integer(row.get(key) or "0", votes, line, key) for key in keys}
    return Sample(
        name, seats(counts, name=name), path=path, data=data, split=split_of(row.get("usage"))
    )


def _label_csv(dataset: Dataset, folder: Path) -> Iterator[Sample]:
    """Read ``label.csv``: picture, box, and ten counts, without a header."""
    path = folder / _LABELS
    if not path.is_file():
        dataset.notes.append(f"{folder.name} has no {_LABELS}: it was not read")
        return
    for line, cells in text.plain_rows(path):
        if len(cells) != 2 + len(ANSWERS):
            raise foreign(path, got=f"line {line}: {len(cells)} cells, 12 expected", what="FER+")
        counts = {
            answer: text.integer(cell, path, line, answer)
            for answer, cell in zip(ANSWERS, cells[2:], strict=True)
        }
        file = dataset.folder.locate(cells[0], folder)
        name = f"{dataset.name_of(folder)}/{cells[0].strip()}"
        yield Sample(
            name, seats(counts, name=name), path=file, split=split_of(folder.name)
        )  # fmt: skip


FER2013 = Format(
    "fer2013",
    "fer2013.csv: 48 px pictures as numbers, one label each",
    _identify,
    _read,
    labels="basic7:fer2013",
)
FERPLUS = Format(
    "ferplus",
    "FER+ votes of ten raters, with fer2013.csv or the pictures",
    _identify_ferplus,
    _read_ferplus,
    labels="expressions8:ferplus",
    over=("fer2013",),
    layouts=("ferplus",),
)
