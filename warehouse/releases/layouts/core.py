"""Stream a version into a folder: verified, resumable, in little memory.

A layout says which files it wants and what they are called. Reading, verification, encoding,
refusals, counting and the final rename are here.
"""

from __future__ import annotations

import csv
import os
import pickle
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import polars as pl

from warehouse.errors import ReleaseError
from warehouse.releases import manifest, verification
from warehouse.releases.difficulty import with_difficulty
from warehouse.releases.layouts import classes, copying, folds, refusals
from warehouse.releases.layouts.files import (
    JOURNAL,
    cell,
    encoded,
    read_columns,
    with_stems,
)
from warehouse.releases.schema import SPLITS, SYNTHETIC
from warehouse.storage import tables
from warehouse.storage.home import Home

_FACTS = ("subject_id", "source", "licence", "video_id")
"""Columns that ``licences.csv`` states or needs."""

FrameReader = Callable[[pl.DataFrame], Iterator[tuple[str, int, Any]]]
"""From rows ``video_id, frame, face_id`` to ``video_id, frame, uint8[h, w, 3] RGB``: each whole,
unmarked frame that can still be read, with every face but those named hidden if the settings say
so."""


@dataclass(frozen=True)
class Options:
    """What the user asked for.

    Attributes:
        label_set, map_file: see ``classes.read``.
        size: side of the pictures in pixels; None for the layout's own.
        folds: None, a number or ``loso``.
        test_split: the release's split that becomes the test set where a layout has two sets.
        all_classes: write empty folders for classes that a split lacks.
        min_votes: leave out faces with fewer votes.
        people: add declared facts of the data subjects.
        machine_text: let machines' texts fill the fields of people's.
        use, drop_forbidden: as in ``releases.build``.
        need: columns that must hold a value.
        difficulty: only rows of this level.
        synthetic: add the synthetic faces of the version to train.
        landmarks: ``package.module:function`` from uint8[h, w, 3] RGB to float[68, 2] in pixels,
            iBUG order, or None where it finds no face.
    """

    layout: str
    dialect: str | None = None
    label_set: str | None = None
    map_file: str | None = None
    size: int | None = None
    folds: str | None = None
    test_split: str | None = None
    all_classes: bool = False
    min_votes: int = 0
    fps: float | None = None
    people: bool = False
    machine_text: bool = False
    use: str | None = None
    drop_forbidden: bool = False
    need: tuple[str, ...] = ()
    difficulty: str | None = None
    landmarks: str | None = None
    synthetic: bool = False
    shard_faces: int = 5000


@dataclass(frozen=True)
class Layout:
    """A published folder structure.

    Attributes:
        name: name in the command.
        title: what the folder is, in one line.
        write: the writer; it names the files and hands rows to the export.
        order: ``<label set>:<order>`` of its classes.
        orders: the same by dialect.
        dialects: variants; the first is the default.
        faces: its labels are those of faces, not of segments.
    """

    name: str
    title: str
    write: Callable[[Export], None]
    order: str = "expressions8:ferplus"
    orders: Mapping[str, str] = field(default_factory=dict)
    dialects: tuple[str, ...] = ()
    faces: bool = True


@dataclass
class Export:
    """One export: what it reads and writes, and what was left out.

    Attributes:
        source: folder of the version.
        target: the folder as the user will see it; paths inside files name it.
        draft: where files are written until the export is complete.
        left_out: reason to number of rows.
        notes: sentences for the user.
        counts_in: rows of each split in the version.
    """

    home: Home
    source: Path
    target: Path
    draft: Path
    options: Options
    classes: classes.Classes
    frames: FrameReader | None = None
    today: date = field(default_factory=lambda: datetime.now(UTC).date())
    left_out: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    counts_in: dict[str, int] = field(default_factory=dict)
    _out: dict[str, dict[str, tuple[Any, ...]]] = field(default_factory=dict)
    _folders: set[str] = field(default_factory=set)
    _sums: dict[Path, Future[str]] = field(default_factory=dict)
    _hashing: ThreadPoolExecutor = field(default_factory=partial(ThreadPoolExecutor, 1))
    _plans: int = 0

    @cached_property
    def contents(self) -> dict[str, Any]:
        """The manifest of the version."""
        return manifest.read(self.source)

    # Rows

    @cached_property
    def faces(self) -> pl.DataFrame:
        """All columns of ``default`` but the pixels, with ``split, suffix, stem``.

        Rows that consent or licence refuse, and rows with too few votes, are left out and counted.
        """
        parts = [
            read_columns(self.read(file)).with_columns(split=pl.lit(split))
            for split in SPLITS
            for file in self.files("data", split)
        ]
        if not parts:
            raise ReleaseError(
                "The version has no faces", got=str(self.source), hint="choose another version"
            )
        rows = self.allowed(pl.concat(parts, how="diagonal_relaxed"))
        if self.options.synthetic:
            count = rows.filter(pl.col("source") == SYNTHETIC).height
            self.notes.append(f"{count} synthetic faces were added to train")
        if self.options.difficulty:
            if "difficulty" not in rows.columns:
                rows = with_difficulty(rows)
            other = pl.col("difficulty").ne_missing(self.options.difficulty)
            rows = self.leave_out(rows, other, "another_difficulty")
        for name in self.options.need:
            if name not in rows.columns:
                raise ReleaseError(
                    "The release has no such column", got=name, hint="correct --need"
                )
            rows = self.leave_out(rows, pl.col(name).is_null(), f"no_{name}")
        return with_stems(rows)

    def allowed(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Leave out rows that consent or licence refuse, or with few votes."""
        self.counts_in = dict(rows.group_by("split").len().iter_rows())
        rows = refusals.without_licence(self, refusals.without_consent(self, rows))
        few = pl.col("n_votes").fill_null(0) < self.options.min_votes
        return self.leave_out(rows, few, "few_votes") if self.options.min_votes else rows

    def labelled(self) -> pl.DataFrame:
        """Return ``faces`` that have a class, with ``word`` and ``number``."""
        rows = self.classes.label(self.faces)
        return self.leave_out(rows, pl.col("left_out"), None).drop("left_out")

    def leave_out(self, rows: pl.DataFrame, wrong: pl.Expr, reason: str | None) -> pl.DataFrame:
        """Remove and count rows.

        Args:
            wrong: true where a row is left out; without ``reason`` the reason itself, or null.
        """
        text = wrong if reason is None else pl.when(wrong).then(pl.lit(reason))
        judged = rows.with_columns(__reason=text)
        counted = judged["__reason"].drop_nulls().value_counts()
        self.left_out.update(dict(counted.iter_rows()))
        return judged.filter(pl.col("__reason").is_null()).drop("__reason")

    def with_frames(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Leave out rows without a frame number.

        Raises:
            ReleaseError: the version has no frame numbers.
        """
        if "frame" not in rows.columns:
            raise ReleaseError(
                "This version holds no frame numbers",
                got="it was built by an earlier Risorius",
                hint="build a new version with `risorius release create`",
            )
        return self.leave_out(rows, pl.col("frame").is_null(), "no_frame")

    def votes(self) -> pl.DataFrame:
        """All standing votes of the version, without skips."""
        files = self.files("votes", "votes")
        if not files:
            return pl.DataFrame(schema={"face_id": pl.String})
        read = [self.read(file) for file in files]
        return pl.scan_parquet(read, glob=False).filter(~pl.col("was_cancelled")).collect()

    def files(self, folder: str, stem: str) -> list[Path]:
        """Return the Parquet files of a config and split by the manifest.

        Synthetic faces belong to train if they are asked for.
        """
        prefixes = [f"{folder}/{stem}-"]
        if self.options.synthetic and (folder, stem) == ("data", "train"):
            prefixes.append(f"{SYNTHETIC}/train-")
        return [
            self.source / name
            for prefix in prefixes
            for name in sorted(self.contents["files"])
            if name.startswith(prefix)
        ]

    def stream(self, files: Iterable[Path], columns: list[str]) -> Iterator[dict[str, Any]]:
        """Yield the rows of files; memory holds one row group."""
        import pyarrow.parquet as pq

        for file in files:
            opened = pq.ParquetFile(self.read(file))
            present = [name for name in columns if name in opened.schema_arrow.names]
            for group in range(opened.num_row_groups):
                yield from opened.read_row_group(group, columns=present).to_pylist()

    def folded(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Add ``fold`` (from 1) if folds are asked for."""
        if self.options.folds is None:
            return rows
        return rows.with_columns(folds.assign(rows, self.options.folds))

    def sets(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Add ``set``: ``train`` or ``test``.

        Without ``--test-split`` the test set is validation and test together.
        """
        if (wanted := self.options.test_split) is None:
            is_test = pl.col("split") != "train"
        else:
            unused = ~pl.col("split").is_in(["train", wanted])
            rows = self.leave_out(rows, unused, "split_not_used")
            is_test = pl.col("split") == wanted
        return rows.with_columns(
            set=pl.when(is_test).then(pl.lit("test")).otherwise(pl.lit("train"))
        )

    # Files

    def path(self, name: str) -> Path:
        """Return the path of a file in the draft; its folder exists."""
        return Path(self._place(name))

    def _place(self, name: str) -> str:
        folder = name.rpartition("/")[0]
        if folder not in self._folders:
            os.makedirs(f"{self.draft}/{folder}", exist_ok=True)
            self._folders.add(folder)
        return f"{self.draft}/{name}"

    def absolute(self, name: str) -> str:
        """Return the final absolute path of a file, for lists that need it."""
        return f"{self.target}/{name}"

    def text(self, name: str, lines: Iterable[str]) -> None:
        """Write lines as UTF-8 with LF."""
        with open(self.path(name), "w", encoding="utf-8", newline="\n") as handle:
            handle.writelines(f"{line}\n" for line in lines)

    def table(
        self, name: str, rows: Iterable[Sequence[Any]], header: Sequence[str] | None = None
    ) -> None:
        """Write a CSV file; floats as ``%.6g``, nothing for null."""
        with open(self.path(name), "w", encoding="utf-8", newline="") as handle:
            writer = csv.writer(handle, lineterminator="\n")
            if header is not None:
                writer.writerow(header)
            writer.writerows([cell(value) for value in row] for row in rows)

    def json(self, name: str, value: Any) -> None:
        """Write a JSON file; NaN becomes null."""
        self.path(name).write_text(encoded(value) + "\n", encoding="utf-8")

    def pickle(self, name: str, value: Any) -> None:
        """Write plain lists and dicts as readers that unpickle expect."""
        with open(self.path(name), "wb") as handle:
            pickle.dump(value, handle, protocol=4)

    def yaml(self, name: str, value: Any) -> None:
        """Write a YAML file in the given order."""
        import yaml

        text = yaml.safe_dump(value, sort_keys=False, allow_unicode=True, default_flow_style=False)
        self.path(name).write_text(text, encoding="utf-8")

    def write_folds(self, rows: pl.DataFrame, path: str = "path") -> None:
        """Write ``folds.csv`` (file, subject, fold) if folds are asked for."""
        if self.options.folds is not None:
            folded = self.folded(rows)
            self.table(
                "folds.csv",
                folded.select(path, "face_id", "subject_id", "fold").iter_rows(),
                header=("file", "face_id", "subject_id", "fold"),
            )

    def keep(self, rows: pl.DataFrame, path: str = "path", key: str = "face_id") -> None:
        """Record rows as exported under their path."""
        facts = [
            pl.col(name) if name in rows.columns else pl.lit(None, pl.String).alias(name)
            for name in _FACTS
        ]
        for row_id, split, name, *known in rows.select(key, "split", path, *facts).iter_rows():
            self._out.setdefault(split, {}).setdefault(row_id, (name, *known))

    def pictures(
        self,
        rows: pl.DataFrame,
        *,
        path: str = "path",
        size: int | None = None,
        gray: bool = False,
        keep: bool = True,
    ) -> None:
        """Write the picture of each row to its path.

        The released bytes are copied, unless size, colour or file type differ.

        Args:
            rows: ``face_id, split, suffix`` and a column with one path or a list of them; further
                paths are hard links where the file system has them.
            size: side in pixels, None for the released size.
        """
        if not rows.height:
            return
        if keep:
            first = pl.col(path)
            if isinstance(rows.schema[path], pl.List):
                first = first.list.first()
            self.keep(rows.with_columns(first.alias(path)), path)
        places = dict(zip(rows["face_id"], rows[path].to_list(), strict=True))
        files = [file for split in SPLITS if split in set(rows["split"])
                 for file in self.files("data", split)]  # fmt: skip
        jobs_of = partial(copying.of_faces, places=places)
        self._copy(files, ["face_id", "image"], jobs_of, size=size, gray=gray)

    def clip_frames(
        self, rows: pl.DataFrame, *, folder: str, name: Callable[[int], str], size: int | None
    ) -> None:
        """Write the frames of each clip.

        Args:
            rows: ``clip_id, split`` and a column ``folder``.
            name: file name of a frame, counted from 0.
        """
        self.keep(rows, path=folder, key="clip_id")
        folders = dict(rows.select("clip_id", folder).iter_rows())
        files = [file for split in SPLITS for file in self.files("clips", split)]
        jobs_of = partial(copying.of_clips, folders=folders, name=name)
        self._copy(files, ["clip_id", "frames"], jobs_of, size=size, gray=False)

    def _copy(
        self,
        files: Sequence[Path],
        columns: list[str],
        jobs_of: Callable[[Any], Iterator[copying.Job]],
        *,
        size: int | None,
        gray: bool,
    ) -> None:
        import pyarrow.parquet as pq

        self._plans += 1
        done = self._journal()
        with ThreadPoolExecutor(copying.THREADS) as pool:
            for file in files:
                opened = pq.ParquetFile(self.read(file))
                relative = str(file.relative_to(self.source))
                for group in range(opened.num_row_groups):
                    if (entry := f"{self._plans} {relative} {group}") in done:
                        continue
                    jobs = list(jobs_of(opened.read_row_group(group, columns=columns)))
                    copying.write(pool, jobs, self._place, size=size, gray=gray)
                    self._record(entry)

    def _journal(self) -> set[str]:
        path = self.draft / JOURNAL
        return set(path.read_text().splitlines()) if path.exists() else set()

    def _record(self, entry: str) -> None:
        with open(self.draft / JOURNAL, "a") as handle:
            handle.write(entry + "\n")

    # Checksums

    def read(self, file: Path) -> Path:
        """Return a file of the version; it is hashed meanwhile."""
        if file not in self._sums:
            self._sums[file] = self._hashing.submit(verification.checksum, file)
        return file

    def verified(self) -> None:
        """Wait for the checksums of the files read.

        Raises:
            ReleaseError: a file was changed.
        """
        for file, checksum in self._sums.items():
            known = self.contents["files"][str(file.relative_to(self.source))]
            try:
                same = checksum.result() == known["sha256"]
            except OSError:  # it was removed
                same = False
            if not same:
                raise ReleaseError(
                    f"{file.name} was changed after it was built",
                    got="another checksum than the manifest states",
                    hint="restore the version from a copy, or build a new one; nothing was "
                    "exported",
                )

    def close(self) -> None:
        """Stop hashing."""
        self._hashing.shutdown(cancel_futures=True)

    # End

    def finish(self) -> dict[str, int]:
        """Write ``licences.csv, source.json`` and the card; return rows per split."""
        self.verified()
        counts = {split: len(self._out[split]) for split in SPLITS if self._out.get(split)}
        if not counts:
            reasons = ", ".join(f"{n} {why}" for why, n in sorted(self.left_out.items()))
            raise ReleaseError(
                f"No row of the release fits the layout {self.options.layout}",
                got=reasons or "none was left out",
                hint="choose another label set with --label-set or --map, or ask the missing "
                "questions of people",
            )
        self._licences()
        self.json("source.json", self._facts(counts))
        shutil.copy(self.source / "README.md", self.draft / "README.md")
        (self.draft / JOURNAL).unlink(missing_ok=True)
        return counts

    def _licences(self) -> None:
        consent = self._consents()
        self.table(
            "licences.csv",
            (
                (name, row_id, *facts, consent.get(video))
                for split in SPLITS
                for row_id, (name, *facts, video) in sorted(self._out.get(split, {}).items())
            ),
            header=("file", "id", *_FACTS[:-1], "consent"),
        )

    def _consents(self) -> dict[str | None, str]:
        if not tables.parts(self.home, "videos"):
            return {}
        stated = tables.scan(self.home, "videos").select("video_id", "consent").collect()
        return dict(stated.drop_nulls().iter_rows())

    def _facts(self, counts: Mapping[str, int]) -> dict[str, Any]:
        asked = {
            key: value
            for key, value in asdict(self.options).items()
            if value not in (None, False, 0, ()) and key not in ("layout", "dialect", "shard_faces")
        }
        return {
            "release": self.contents["name"],
            "version": self.contents.get("label", f"v{self.contents['version']}"),
            "checksum": self.contents.get("checksums", {}).get("default"),
            "layout": self.options.layout,
            "dialect": self.options.dialect,
            "options": asked,
            "labels": self.classes.facts(),
            "rows_in": {split: n for split in SPLITS if (n := self.counts_in.get(split))},
            "rows_out": dict(counts),
            "left_out": dict(sorted(self.left_out.items())),
            "notes": self.notes,
        }
