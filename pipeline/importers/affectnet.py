"""Read the csv files of AffectNet, its npy edition and its Kaggle edition."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pipeline.importers import text
from pipeline.importers.samples import Dataset, Folder, Format, Sample, Vote, foreign, split_of

_FILE = "subdirectory_filepath"
_MACHINE = "automatic"
_IMAGES = ("images", "Manually_Annotated_Images", "Manually_Annotated", "Images")
_OPEN = {"8": "none", "9": "uncertain", "10": "no-face"}


def _tables(folder: Folder) -> list[Path]:
    return [path for path in folder.ending(".csv") if _FILE in text.header(path)]


def _identify(folder: Folder) -> str | None:
    if found := _tables(folder):
        return f"{found[0].name} has the column subDirectory_filePath"
    if found := _arrays(folder):
        return f"{found[0].parent.name}/ holds <n>_exp.npy files"
    return None


def _arrays(folder: Folder) -> list[Path]:
    return [path for path in folder.ending("_exp.npy") if path.parent.name == "annotations"]


def _read(dataset: Dataset) -> Iterator[Sample]:
    tables = _tables(dataset.folder)
    for table in tables:
        if _MACHINE in table.stem.casefold():
            dataset.notes.append(f"{table.name} was not read: a machine gave its labels")
        else:
            yield from _table(dataset, table)
    if not tables:
        yield from _npy(dataset)


def _table(dataset: Dataset, table: Path) -> Iterator[Sample]:
    folder = dataset.folder
    roots = [one for name in _IMAGES if (one := folder.folder(name))]
    roots += [table.parent, dataset.path]
    for line, row in text.rows(table, (_FILE, "expression")):
        path = folder.locate(row[_FILE], *roots)
        corners = [row.get(f"face_{part}") or "" for part in ("x", "y", "width", "height")]
        box = None
        if all(corners) and "NULL" not in corners:
            x, y, w, h = (text.real(value, table, line, "face box") for value in corners)
            box = (x, y, w, h) if w > 0 and h > 0 else None
        yield Sample(
            dataset.name_of(path) if path else row[_FILE].replace("\\", "/"),
            (
                Vote(
                    labels=(row["expression"],),
                    valence=_mood(row.get("valence"), table, line),
                    arousal=_mood(row.get("arousal"), table, line),
                ),
            ),
            path=path,
            split=split_of(table.stem),
            box=box,
        )


def _mood(value: str | None, table: Path, line: int) -> float | None:
    """Return a value in [-1, 1]; -2 stands for none."""
    if not value:
        return None
    found = text.real(value, table, line, "valence or arousal")
    return found if -1 <= found <= 1 else None


def _npy(dataset: Dataset) -> Iterator[Sample]:
    """Read ``<set>/annotations/<n>_{exp,val,aro}.npy`` and ``<set>/images/``."""
    for label in _arrays(dataset.folder):
        number, top = label.name.removesuffix("_exp.npy"), label.parent.parent
        path = next(
            (one for suffix in ("jpg", "png")
             if (one := dataset.folder.locate(f"{number}.{suffix}", top / "images"))), None
        )  # fmt: skip
        valence, arousal = (_scalar(label.with_name(f"{number}_{name}.npy"), optional=True)
                            for name in ("val", "aro"))  # fmt: skip
        name = f"{dataset.name_of(top) + '/' if top != dataset.path else ''}images/{number}.jpg"
        yield Sample(
            dataset.name_of(path) if path else name,
            (
                Vote(
                    labels=(f"{_scalar(label):g}",),
                    valence=valence if valence is not None and abs(valence) <= 1 else None,
                    arousal=arousal if arousal is not None and abs(arousal) <= 1 else None,
                ),
            ),
            path=path,
            split=split_of(top.name.removesuffix("_set")),
        )


def _scalar(path: Path, *, optional: bool = False) -> float | None:
    import numpy as np

    if optional and not path.is_file():
        return None
    try:
        return float(np.load(path, allow_pickle=False).reshape(-1)[0])
    except (OSError, ValueError, EOFError, IndexError) as error:
        raise foreign(path, got=str(error) or "an empty file", what="an npy file of a number") \
            from None  # fmt: skip


def _identify_kaggle(folder: Folder) -> str | None:
    for path in folder.ending(".csv"):
        if text.header(path) == ["image", "emotion"] and any(
            "class0" in cell for _, cells in _first(path) for cell in cells
        ):
            return f"{path.name} names pictures below class001, class002, …"
    return None


def _first(path: Path) -> Iterator[tuple[int, list[str]]]:
    for number, cells in text.plain_rows(path):
        yield number, cells
        if number > 1:
            return


def _read_kaggle(dataset: Dataset) -> Iterator[Sample]:
    for table in dataset.folder.ending(".csv"):
        if text.header(table) != ["image", "emotion"]:
            continue
        for _, row in text.rows(table):
            path = dataset.folder.locate(row["image"], table.parent, dataset.path)
            yield Sample(
                dataset.name_of(path) if path else row["image"],
                (Vote(labels=(row["emotion"],)),),
                path=path,
                split=split_of(table.stem),
            )


AFFECTNET = Format(
    "affectnet",
    "AffectNet csv or npy files: box, expression 0 to 10, valence, arousal",
    _identify,
    _read,
    labels="expressions8:affectnet8",
    words=_OPEN,
    layouts=("affectnet",),
)
KAGGLE = Format(
    "affectnet-kaggle",
    "AffectNet on Kaggle: image, emotion 1 to 8, folders class001 to class008",
    _identify_kaggle,
    _read_kaggle,
    labels="expressions8:affectnet_kaggle",
    over=("imagefolder",),
    layouts=("affectnet",),
)
