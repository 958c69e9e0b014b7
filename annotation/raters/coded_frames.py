"""Read frames with FACS codes from folders shaped like DISFA or BP4D.

DISFA (Mavadati et al., 2013, doi:10.1109/T-AFFC.2013.4)::

    ActionUnit_Labels/SN001/SN001_au12.txt      rows "frame,intensity", 0 to 5, frames from 1
    Videos_LeftCamera/LeftVideoSN001_comp.avi   or any video or folder of pictures named after it

BP4D (Zhang et al., 2014, doi:10.1016/j.imavis.2014.06.002)::

    AUCoding/AU_OCC/F001_T1.csv                 first row: 0 and the units; first column: frames;
                                                1 present, 0 absent, 9 unknown
    AUCoding/AU_INT/AU12/F001_T1_AU12.csv       rows "frame,intensity", 0 to 5, 9 unknown
    2D+3D/F001/T1/0001.jpg                      pictures named after their frame
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from warehouse.errors import TableError
from warehouse.vocabulary import AU_INDEX

INTENSITY_TOP = 5.0
PRESENT = 2.0
"""Intensity from which a unit counts as present, as results on DISFA are usually given."""

_UNKNOWN = 9
_VIDEOS = (".avi", ".mp4", ".mov", ".mkv", ".wmv", ".mpg")
_PICTURES = (".jpg", ".jpeg", ".png", ".bmp")
_DISFA = re.compile(r"(?P<name>(?P<subject>SN\d+).*)_au(?P<unit>\d+)\.txt", re.IGNORECASE)
_BP4D = re.compile(r"(?P<subject>[FM]\d+)_(?P<task>T\d+)\.csv", re.IGNORECASE)
_BP4D_INTENSITY = re.compile(r"(?P<name>[FM]\d+_T\d+)_AU(?P<unit>\d+)\.csv", re.IGNORECASE)


@dataclass(frozen=True)
class CodedSequence:
    """Coded frames of one recording.

    Attributes:
        source: a video, or a folder of pictures named after their frame.
        frames: int[n], rising; the first frame of a video is 1.
        intensity: float32[n, K] in the order of ``vocabulary.ACTION_UNITS``: 0 to 5, NaN where
            the coders gave none.
        present: float32[n, K]: 1, 0, or NaN if unknown.
    """

    name: str
    subject: str
    source: Path
    frames: np.ndarray
    intensity: np.ndarray
    present: np.ndarray


def recognise(folder: Path) -> str:
    """Return the format of a folder.

    Raises:
        TableError: it has none of the forms.
    """
    if any(_disfa_files(folder)):
        return "disfa"
    if any(_occurrence_files(folder)):
        return "bp4d"
    raise TableError(
        "The folder has the form of no data set with coded action units",
        got=str(folder),
        hint="expected DISFA's ActionUnit_Labels/SN001/SN001_au1.txt, or BP4D's "
        "AUCoding/AU_OCC/F001_T1.csv",
    )


def read(folder: Path, form: str = "auto") -> tuple[str, list[CodedSequence], list[str]]:
    """Return format, recordings with codes and pictures, and what is missing.

    Raises:
        TableError: nothing can be evaluated, or a file of codes is malformed.
    """
    chosen = recognise(folder) if form == "auto" else form
    if chosen not in FORMATS:
        raise TableError(
            "No such format of action units", got=chosen, hint=f"use {', '.join(FORMATS)}"
        )
    found, missing = [], []
    for item in FORMATS[chosen](folder):
        if isinstance(item, str):
            missing.append(item)
        else:
            found.append(item)
    if not found:
        raise TableError(
            "No recording has both codes and pictures",
            got="; ".join(missing[:5]) or f"no files of {chosen} below {folder}",
            hint="put the videos or the folders of pictures beside the codes",
        )
    return chosen, found, missing


def _disfa_files(folder: Path) -> Iterator[tuple[re.Match[str], Path]]:
    for path in sorted(folder.rglob("*.txt")):
        if match := _DISFA.fullmatch(path.name):
            yield match, path


def _disfa(folder: Path) -> Iterator[CodedSequence | str]:
    codes: dict[tuple[str, str], dict[int, Path]] = {}
    for match, path in _disfa_files(folder):
        key = (match["name"], match["subject"].upper())
        codes.setdefault(key, {})[int(match["unit"])] = path
    media = [path for path in sorted(folder.rglob("*")) if _is_source(path)]
    for (name, subject), files in sorted(codes.items()):
        named = [path for path in media if re.search(rf"{subject}(?!\d)", path.name.upper())]
        if not named:
            yield f"{name}: no video or folder of pictures named {subject}"
            continue
        # Recorded by two cameras: the left one, as in the publication.
        source = min(named, key=lambda path: ("LEFT" not in path.as_posix().upper(), str(path)))
        columns = {unit: dict(_pairs(path)) for unit, path in files.items()}
        frames = sorted(set().union(*columns.values()))
        intensity = _table(frames, columns)
        yield CodedSequence(
            name, subject, source, np.array(frames), intensity, _presence(intensity)
        )


def _occurrence_files(folder: Path) -> Iterator[tuple[re.Match[str], Path]]:
    for path in sorted(folder.rglob("*.csv")):
        if (match := _BP4D.fullmatch(path.name)) and "AU_OCC" in path.parts:
            yield match, path


def _bp4d(folder: Path) -> Iterator[CodedSequence | str]:
    pictures = {
        f"{path.parent.name}_{path.name}".upper(): path
        for path in sorted(folder.rglob("*"))
        if path.is_dir() and _is_source(path)
    }
    strengths: dict[str, dict[int, Path]] = {}
    for path in sorted(folder.rglob("*.csv")):
        if match := _BP4D_INTENSITY.fullmatch(path.name):
            strengths.setdefault(match["name"].upper(), {})[int(match["unit"])] = path
    for match, path in _occurrence_files(folder):
        subject, task = match["subject"].upper(), match["task"].upper()
        name = f"{subject}_{task}"
        source = pictures.get(name)
        if source is None:
            yield f"{name}: no folder of pictures {subject}/{task}"
            continue
        columns = _occurrences(path)
        frames = sorted(set().union(*columns.values()))
        strong = {unit: dict(_pairs(file)) for unit, file in strengths.get(name, {}).items()}
        yield CodedSequence(
            name, subject, source, np.array(frames), _table(frames, strong), _table(frames, columns)
        )


def _is_source(path: Path) -> bool:
    if path.is_dir():
        return any(one.suffix.lower() in _PICTURES and one.stem.isdigit() for one in path.iterdir())
    return path.suffix.lower() in _VIDEOS


def _table(frames: list[int], columns: dict[int, dict[int, float]]) -> np.ndarray:
    place = {frame: row for row, frame in enumerate(frames)}
    table = np.full((len(frames), len(AU_INDEX)), np.nan, dtype=np.float32)
    for unit, codes in columns.items():
        for frame, value in codes.items():
            if unit in AU_INDEX and frame in place and value != _UNKNOWN:
                table[place[frame], AU_INDEX[unit]] = value
    return table


def _presence(intensity: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(intensity), np.nan, intensity >= PRESENT).astype(np.float32)


FORMATS = {"disfa": _disfa, "bp4d": _bp4d}


def _pairs(path: Path) -> Iterator[tuple[int, float]]:
    for line, row in _rows(path):
        frame, value = _numbers(path, line, row[:2], wanted=2)
        yield int(frame), _checked(path, line, value)


def _occurrences(path: Path) -> dict[int, dict[int, float]]:
    rows = _rows(path)
    if not rows:
        raise _malformed(path, 1, "an empty file")
    line, header = rows[0]
    units = [int(unit) for unit in _numbers(path, line, header, wanted=len(header))[1:]]
    columns: dict[int, dict[int, float]] = {unit: {} for unit in units}
    for line, row in rows[1:]:
        frame, *values = _numbers(path, line, row, wanted=len(units) + 1)
        for unit, value in zip(units, values, strict=True):
            columns[unit][int(frame)] = _checked(path, line, value)
    return columns


def _rows(path: Path) -> list[tuple[int, list[str]]]:
    """Return number and cells of the lines that are not blank."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise _malformed(path, 1, str(error)) from error
    table = csv.reader(text.splitlines())
    return [(table.line_num, row) for row in table if any(cell.strip() for cell in row)]


def _numbers(path: Path, line: int, row: list[str], *, wanted: int) -> list[float]:
    try:
        numbers = [float(cell) for cell in row]
    except ValueError:
        raise _malformed(path, line, ",".join(row)) from None
    if len(numbers) != wanted:
        raise _malformed(path, line, ",".join(row))
    return numbers


def _checked(path: Path, line: int, value: float) -> float:
    if not (0 <= value <= INTENSITY_TOP or value == _UNKNOWN):
        raise _malformed(path, line, f"{value:g}")
    return value


def _malformed(path: Path, line: int, got: str) -> TableError:
    return TableError(
        f"Line {line} of {path.name} is no code of an action unit",
        got=got,
        hint="expected a frame and intensities 0 to 5, or 9 for unknown",
    )
