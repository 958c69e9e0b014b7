"""What every importer yields: samples with votes, and the folder read."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path, PurePosixPath

from pipeline.importers.words import Words
from pipeline.ingest import names
from warehouse.errors import SettingsError

IMAGES = (
    ".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".heic", ".heif",
    ".avif",
)  # fmt: skip
VIDEOS = (".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".wmv", ".mpg", ".mpeg", ".flv")

SPLITS = {
    "train": "train", "training": "train", "train set": "train", "fer2013train": "train",
    "val": "validation", "valid": "validation", "validation": "validation", "dev": "validation",
    "development": "validation", "publictest": "validation", "validation set": "validation",
    "fer2013valid": "validation", "test": "test", "testing": "test", "privatetest": "test",
    "test set": "test", "fer2013test": "test",
}  # fmt: skip
"""What data sets call their splits, and what a release calls them."""

_DEPTH = 4
_SHOWN = 5


def split_of(word: str | None) -> str | None:
    """Return the split that a word stands for; None for any other word."""
    return SPLITS.get((word or "").strip().casefold().replace("_", " ").replace("-", " "))


@dataclass(frozen=True)
class Vote:
    """One rater's answer, in the words of the data set.

    Attributes:
        rater: the data set's name of the rater, ``label`` for the label of a data set, or
            ``seat-<n>`` where votes are only counted.
        labels: words or numbers of the data set.
        at: time of the vote in UTC.
        answered: the labels are answers of the label set already.
        valence, arousal: in [-1, 1].
        units: FACS number and intensity in [0, 1] of each coded action unit.
    """

    rater: str = "label"
    labels: tuple[str, ...] = ()
    at: datetime | None = None
    valence: float | None = None
    arousal: float | None = None
    units: tuple[tuple[int, float], ...] = ()
    answered: bool = False


@dataclass(frozen=True)
class Sample:
    """One labelled face of a picture.

    Attributes:
        name: path in the data set, with ``/``. Samples of one name are of one file.
        path: the file, None if it is not there or is given by ``data``.
        data: an encoded picture that the data set holds inside a table or archive.
        box: ``x y w h`` of the labelled face in pixels.
    """

    name: str
    votes: tuple[Vote, ...] = ()
    path: Path | None = None
    data: bytes | None = None
    split: str | None = None
    subject: str | None = None
    licence: str | None = None
    consent: str | None = None
    box: tuple[float, float, float, float] | None = None


@dataclass(frozen=True)
class Options:
    """Options of an import.

    Attributes:
        label_column: column of the labels in tables that have no fixed one.
        label_map: word of the data set to answer; an empty answer drops the word.
        label_set: ``<label set>[:<order>]`` of the answers.
        drop: the quality gate drops labelled faces, as it does for videos.
    """

    label_column: str | None = None
    label_map: Mapping[str, str] = field(default_factory=dict)
    label_set: str | None = None
    drop: bool = False


@dataclass(frozen=True)
class Format:
    """A published structure of a data set.

    Attributes:
        name: name in the command.
        title: what it is, in one line.
        identify: why a folder has this format; None if it has not.
        read: yields the samples.
        labels: ``<label set>[:<order>]`` of its words and numbers.
        words: further words of this data set, to words of the label set.
        over: formats that do not count as candidates where this one fits.
        layouts: layouts of ``risorius release export`` that it reads.
    """

    name: str
    title: str
    identify: Callable[[Folder], str | None]
    read: Callable[[Dataset], Iterator[Sample]]
    labels: str = "expressions8"
    words: Mapping[str, str] = field(default_factory=dict)
    over: tuple[str, ...] = ()
    layouts: tuple[str, ...] = ()


class Folder:
    """The files of a data set, listed to a depth that holds its tables."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._listed: dict[Path, dict[str, str]] = {}

    @cached_property
    def tables(self) -> list[str]:
        """Relative paths of the files that are no pictures, sorted."""
        media = (*IMAGES, *VIDEOS)
        return sorted(
            str((top / name).relative_to(self.path))
            for top, _, files in self._walk
            for name in files
            if not name.lower().endswith(media)
        )

    @cached_property
    def folders(self) -> list[str]:
        """Relative paths of the folders below, sorted."""
        return sorted(str(top.relative_to(self.path)) for top, _, _ in self._walk)[1:]

    @cached_property
    def _walk(self) -> list[tuple[Path, list[str], list[str]]]:
        found = []
        for top, folders, files in os.walk(self.path):
            depth = len(Path(top).relative_to(self.path).parts)
            folders[:] = sorted(one for one in folders if not one.startswith("."))
            if depth >= _DEPTH:
                folders[:] = []
            found.append((Path(top), list(folders), [f for f in files if not f.startswith(".")]))
        return found

    def find(self, *wanted: str) -> list[Path]:
        """Return the tables of these file names, in any case."""
        names_wanted = {one.casefold() for one in wanted}
        return [
            self.path / one
            for one in self.tables
            if PurePosixPath(one).name.casefold() in names_wanted
        ]

    def ending(self, *suffixes: str) -> list[Path]:
        """Return the tables of these suffixes."""
        return [self.path / one for one in self.tables if one.lower().endswith(suffixes)]

    def folder(self, *wanted: str) -> Path | None:
        """Return the first folder of one of these names, in any case."""
        for name in wanted:
            for one in self.folders:
                if PurePosixPath(one).name.casefold() == name.casefold():
                    return self.path / one
        return None

    def pictures(self, *, deep: bool = False) -> Iterator[Path]:
        """Yield the pictures of the top folder, or of all."""
        for top, folders, files in os.walk(self.path):
            folders[:] = sorted(one for one in folders if not one.startswith("."))
            if not deep:
                folders[:] = []
            for name in sorted(files):
                if name.lower().endswith(IMAGES) and not name.startswith("."):
                    yield Path(top) / name

    def locate(self, name: str, *roots: Path) -> Path | None:
        """Return the file of a name below one of some folders.

        Another case, form of accents or separator is the same name.
        """
        wanted = PurePosixPath(name.strip().replace("\\", "/"))
        if wanted.is_absolute() or ".." in wanted.parts:
            return None
        for root in roots or (self.path,):
            place: Path | None = root
            for part in wanted.parts:
                place = self._child(place, part) if place is not None else None
            if place is not None and place != root:
                return place
        return None

    def _child(self, folder: Path, name: str) -> Path | None:
        if folder not in self._listed:
            try:
                inside = os.listdir(folder)
            except OSError:
                inside = []
            exact = {one: one for one in inside}
            self._listed[folder] = {names.key_of(one): one for one in inside} | exact
        known = self._listed[folder]
        found = known.get(name) or known.get(names.key_of(name))
        return folder / found if found else None


@dataclass
class Dataset:
    """A folder being read, and what its report will say.

    Attributes:
        left: reason to names of the files or classes that give no vote.
        notes: sentences for the user.
    """

    folder: Folder
    options: Options
    words: Words
    left: dict[str, Counter[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def path(self) -> Path:
        return self.folder.path

    def leave(self, reason: str, name: str) -> None:
        """Count something that gives no vote."""
        self.left.setdefault(reason, Counter())[name] += 1

    def name_of(self, path: Path) -> str:
        """Return the path of a file in the data set."""
        return path.relative_to(self.path).as_posix()

    def described(self) -> list[str]:
        """Return one sentence per reason, with the first names."""
        said = []
        for reason, counted in sorted(self.left.items()):
            shown = ", ".join(
                names.escaped(f"{name} ({n})" if n > 1 else name)
                for name, n in counted.most_common(_SHOWN)
            )
            more = ", …" if len(counted) > _SHOWN else ""
            said.append(f"{counted.total()} {reason}: {shown}{more}")
        return [*said, *self.notes]


def seats(counts: Mapping[str, int], *, name: str) -> tuple[Vote, ...]:
    """Return one vote per counted answer.

    The order is shuffled, the same at every call: otherwise the first seat would prefer the first
    label.
    """
    from random import Random

    given = [label for label, count in counts.items() for _ in range(count)]
    Random(name.encode("utf-8", "surrogatepass")).shuffle(given)
    return tuple(Vote(f"seat-{seat:02d}", (label,)) for seat, label in enumerate(given))


def foreign(path: Path, *, got: str, what: str) -> SettingsError:
    """Return the error of a file that is not what the format expects."""
    return SettingsError(
        f"{path.name} is not {what}",
        got=got,
        hint="the file may be cut short or of another data set: copy it again, or choose another "
        "--format",
    )
