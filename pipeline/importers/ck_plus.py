"""Read CK+: emotion and FACS codes of the last frame of a sequence."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pipeline.importers import text
from pipeline.importers.samples import IMAGES, Dataset, Folder, Format, Sample, Vote, foreign
from warehouse.vocabulary import AU_INDEX, INTENSITY

_WORDS = {
    "0": "neutral", "1": "anger", "2": "contempt", "3": "disgust", "4": "fear", "5": "happiness",
    "6": "sadness", "7": "surprise",
}  # fmt: skip
_LEVELS = {1: INTENSITY["A"], 2: INTENSITY["B"], 3: INTENSITY["C"], 4: INTENSITY["D"],
           5: INTENSITY["E"]}  # fmt: skip
PRESENT = INTENSITY["C"]
"""Intensity of an action unit that is coded as present without one."""


def _codes(folder: Folder) -> dict[str, dict[str, Path]]:
    """Return sequence, such as ``S005/001``, to kind to file."""
    found: dict[str, dict[str, Path]] = {}
    for kind in ("emotion", "facs"):
        for path in folder.ending(f"_{kind}.txt"):
            if len(path.relative_to(folder.path).parts) > 2:
                sequence = f"{path.parent.parent.name}/{path.parent.name}"
                found.setdefault(sequence, {})[kind] = path
    return found


def _identify(folder: Folder) -> str | None:
    for sequence, files in _codes(folder).items():
        return f"{next(iter(files.values())).name} codes the sequence {sequence}"
    return None


def _read(dataset: Dataset) -> Iterator[Sample]:
    roots = [one for name in ("cohn-kanade-images", "Images", "extended-cohn-kanade-images") if
             (one := dataset.folder.folder(name))]  # fmt: skip
    graded = False
    for sequence, files in sorted(_codes(dataset.folder).items()):
        peak = next(
            (pictures[-1] for root in [*roots, dataset.path] if
             (pictures := _pictures(root / sequence))), None
        )  # fmt: skip
        units: tuple[tuple[int, float], ...] = ()
        if "facs" in files:
            units, ungraded = _units(dataset, files["facs"])
            graded |= ungraded
        labels = _emotion(files["emotion"]) if "emotion" in files else ()
        yield Sample(
            dataset.name_of(peak) if peak else f"{sequence} (no picture)",
            (Vote(labels=labels, units=units),),
            path=peak,
            subject=sequence.partition("/")[0],
        )
    dataset.notes.append("of each sequence the last frame was read, which the codes are about")
    if graded:
        dataset.notes.append(f"units coded without intensity count as {PRESENT:g}")


def _pictures(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGES
                  and not path.name.startswith("."))  # fmt: skip


def _emotion(path: Path) -> tuple[str, ...]:
    for line, content in text.lines(path):
        return (str(text.integer(content.split()[0], path, line, "emotion")),)
    return ()


def _units(dataset: Dataset, path: Path) -> tuple[tuple[tuple[int, float], ...], bool]:
    found: dict[int, float] = {}
    ungraded = False
    for line, content in text.lines(path):
        cells = content.split()
        if len(cells) != 2:
            raise foreign(path, got=f"line {line}: {content[:80]!r}", what="a FACS file of CK+")
        unit, level = (text.integer(cell, path, line, "action unit") for cell in cells)
        if unit not in AU_INDEX:
            dataset.leave("codes of action units outside the 24", f"AU{unit}")
            continue
        ungraded |= level not in _LEVELS
        found[unit] = _LEVELS.get(level, PRESENT)
    return tuple(sorted(found.items())), ungraded


FORMAT = Format(
    "ck+",
    "CK+ folders Emotion and FACS with the sequences of pictures",
    _identify,
    _read,
    labels="expressions8",
    words=_WORDS,
)
