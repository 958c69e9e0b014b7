"""Load, list, show and verify releases."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from warehouse.errors import ReleaseError
from warehouse.ids import file_sha256
from warehouse.releases import manifest, splits, verification, versions
from warehouse.releases.schema import CONFIGS, SPLITS, SYNTHETIC
from warehouse.releases.verification import verify
from warehouse.releases.versions import Release
from warehouse.storage import locks, mirror
from warehouse.storage.home import Home

if TYPE_CHECKING:
    from datasets import DatasetDict


def load(
    name: str,
    version: str | int = "latest",
    *,
    home: str | Path | Home | None = None,
    config: str = "default",
    votes: bool = False,
    synthetic: bool = False,
    skip_verification: str | None = None,
) -> DatasetDict:
    """Return one version as a ``DatasetDict`` of its splits.

    The cache of ``datasets`` is kept in the home, where an erasure finds it.

    Args:
        version: ``latest``, ``v2``, ``2`` or 2.
        home: by default ``RISORIUS_HOME``, else ``./.risorius``.
        config: ``default`` (faces), ``synthetic`` (synthetic faces, in one split ``train``),
            ``votes`` (every vote, in one split ``train``), ``clips``, ``segments``,
            ``segment_votes``, ``texts`` or ``spans``.
        votes: add a column ``votes`` with the answers behind each soft label: a list of
            ``rater_id, rater_kind, expressions`` without skips.
        synthetic: add the rows of config ``synthetic``, if there is one, to train.
        skip_verification: why checksums are not compared; it is shown in a warning. By default
            each file that is read is hashed once per process.

    Raises:
        ReleaseError: there is no such release, version or config, or files were changed, added or
            removed.
    """
    place = Home.at(home)
    path = versions.resolve(place, name, version)
    contents = manifest.read(path)
    if config not in CONFIGS or not any(
        file.startswith(CONFIGS[config]) for file in contents["files"]
    ):
        raise ReleaseError(
            f"{name} {path.name} has no such config", got=repr(config), hint="use 'default'"
        )
    joined = synthetic and config == "default" and contents.get("synthetic") is not None
    read = {"README.md", CONFIGS[config], *([CONFIGS["votes"]] if votes else [])}
    read |= {CONFIGS[SYNTHETIC]} if joined else set()
    verification.check(path, *sorted(read), complete=True, skip=skip_verification)

    import datasets

    # The cache key is the manifest's hash, so a rebuilt version never reads a stale cache.
    cache = place.cache / "datasets" / file_sha256(str(path / manifest.FILE))[:16]
    with locks.writing(place.root):
        found = datasets.load_dataset(str(path), config, cache_dir=str(cache))
        if joined:
            made = datasets.load_dataset(str(path), SYNTHETIC, cache_dir=str(cache))["train"]
            found["train"] = datasets.concatenate_datasets([found["train"], made])
    return _with_votes(found, path) if votes and config == "default" else found


def list_releases(
    home: str | Path | Home | None = None, *, name: str | None = None
) -> list[Release]:
    """List every version on disk, of one release if ``name`` is set.

    Damaged versions are listed with their ``problem``.
    """
    place = Home.at(home)
    mirror.sync(place.releases)
    if not place.releases.is_dir():
        return []
    folders = sorted(entry for entry in place.releases.iterdir() if entry.is_dir())
    return [
        _entry(folder / str(number))
        for folder in folders
        if name is None or folder.name == name
        for number in versions.numbers(folder)
    ]


def show(
    home: str | Path | Home | None = None, *, name: str, version: str | int = "latest"
) -> dict[str, Any]:
    """Return the manifest of a version, its ``path`` and ``problems``.

    ``problems`` is the result of ``verify``.

    Raises:
        ReleaseError: there is no such version, or its manifest is damaged.
    """
    path = versions.resolve(Home.at(home), name, version)
    return manifest.read(path) | {"path": str(path), "problems": verify(path)}


def leaks(path: str | Path) -> list[str]:
    """List subjects, videos and near duplicates that are in two splits."""
    columns = ("face_id", "subject_id", "video_id", "duplicate_of", "source")
    # Clips have no duplicate_of: the rows of their faces cover it.
    renamed = (
        pl.col("clip_id").alias("face_id"),
        "subject_id",
        "video_id",
        pl.lit(None, dtype=pl.String).alias("duplicate_of"),
        "source",
    )
    spoken = (
        pl.col("segment_id").alias("face_id"),
        pl.col("subject_ids").alias("subject_id"),
        *renamed[2:],
    )
    parts = [
        pl.scan_parquet(sorted(found), glob=False).select(*chosen, split=pl.lit(split))
        for folder, chosen in (
            ("data", columns),
            ("synthetic", columns),
            ("clips", renamed),
            ("segments", spoken),
        )
        for split in SPLITS
        if (found := list((Path(path) / folder).glob(f"{split}-*.parquet")))
    ]
    # A segment may show several subjects: a row for each.
    named = [
        part.explode("subject_id") if part.collect_schema()["subject_id"] != pl.String else part
        for part in parts
    ]
    return splits.check(pl.concat(named).collect()) if named else []


def _with_votes(faces: DatasetDict, path: Path) -> DatasetDict:
    from datasets import Dataset, DatasetDict, Features, List, Value, concatenate_datasets

    text = Value("string")
    answer = {"rater_id": text, "rater_kind": text, "expressions": List(text)}
    kinds = Features({"votes": List(answer)})
    answers: dict[str, list[dict[str, Any]]] = {}
    if files := sorted((path / "votes").glob("votes-*.parquet")):
        cast = pl.scan_parquet(files, glob=False).filter(~pl.col("was_cancelled"))
        for row in cast.select("face_id", *answer).collect().iter_rows(named=True):
            answers.setdefault(row.pop("face_id"), []).append(row)

    def votes_of(ids: Iterable[str]) -> Dataset:
        return Dataset.from_dict({"votes": [answers.get(face, []) for face in ids]}, features=kinds)

    return DatasetDict(
        {
            split: concatenate_datasets([part, votes_of(part["face_id"])], axis=1)
            for split, part in faces.items()
        }
    )


def _entry(path: Path) -> Release:
    name, version = path.parent.name, path.name
    try:
        return Release(name, version, path, rows=manifest.read(path)["rows"])
    except ReleaseError as error:
        return Release(name, version, path, rows=None, problem=str(error))
