"""Read releases: load one for training, list them, prove their files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from warehouse.errors import ReleaseError
from warehouse.ids import file_sha256
from warehouse.releases import splits, versions
from warehouse.releases.schema import SPLITS
from warehouse.releases.shards import CONFIGS
from warehouse.releases.versions import Release
from warehouse.storage import mirror
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
) -> DatasetDict:
    """One version as a ``DatasetDict`` of the splits that have rows.

    The copy that ``datasets`` keeps for reading lies in the home, where forgetting a person
    finds it, and not in the cache of the account.

    Args:
        version: ``latest``, ``v2``, ``2`` or 2.
        home: by default the one that ``RISORIUS_HOME`` names, else ``./.risorius``.
        config: ``default`` (faces), ``votes`` (every vote, in one split ``train``) or ``clips``.
        votes: give each face a column ``votes``: every answer behind its soft label, as a list of
            ``rater_id, rater_kind, expressions``; skips are no answers.

    Raises:
        ReleaseError: no such release, version or config, or files are gone or of another size.
    """
    place = Home.at(home)
    path = versions.resolve(place, name, version)
    facts = versions.manifest(path)
    if config not in CONFIGS or not any(
        file.startswith(CONFIGS[config]) for file in facts["files"]
    ):
        raise ReleaseError(
            f"a config that {name} {path.name} has", got=repr(config), hint="take 'default'"
        )
    damage = _sizes(path, facts)
    if damage:
        raise _damaged(path, damage)

    import datasets

    # Keyed by the manifest's own hash: a version rebuilt elsewhere never meets a stale copy.
    cache = place.cache / "datasets" / file_sha256(str(path / versions.MANIFEST))[:16]
    found = datasets.load_dataset(str(path), config, cache_dir=str(cache))
    return _with_votes(found, path) if votes and config == "default" else found


def _with_votes(faces: DatasetDict, path: Path) -> DatasetDict:
    from datasets import Dataset, DatasetDict, Features, List, Value, concatenate_datasets

    text = Value("string")
    answer = {"rater_id": text, "rater_kind": text, "expressions": List(text)}
    kinds = Features({"votes": List(answer)})
    files = sorted((path / "votes").glob("votes-*.parquet"))
    said: dict[str, list[dict[str, Any]]] = {}
    if files:
        cast = pl.scan_parquet(files, glob=False).filter(~pl.col("was_cancelled"))
        for row in cast.select("face_id", *answer).collect().iter_rows(named=True):
            said.setdefault(row.pop("face_id"), []).append(row)

    def votes_of(ids: Iterable[str]) -> Dataset:
        return Dataset.from_dict({"votes": [said.get(face, []) for face in ids]}, features=kinds)

    return DatasetDict(
        {
            split: concatenate_datasets([part, votes_of(part["face_id"])], axis=1)
            for split, part in faces.items()
        }
    )


def list_releases(
    home: str | Path | Home | None = None, *, name: str | None = None
) -> list[Release]:
    """Every version on disk (of one release), by name and number; damaged ones say so."""
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
    """The manifest of one version, plus ``path`` and ``problems``, what ``verify`` finds.

    Raises:
        ReleaseError: there is no such version, or its manifest is damaged.
    """
    path = versions.resolve(Home.at(home), name, version)
    return versions.manifest(path) | {"path": str(path), "problems": verify(path)}


def leaks(path: str | Path) -> list[str]:
    """Subjects, videos and near duplicates in two splits, read from the files themselves."""
    columns = ("face_id", "subject_id", "video_id", "duplicate_of")
    parts = [
        pl.scan_parquet(sorted(found), glob=False).select(*columns, split=pl.lit(split))
        for split in SPLITS
        if (found := list((Path(path) / "data").glob(f"{split}-*.parquet")))
    ]
    # A clip's faces repeat nothing that its video's do not: their own rows say so.
    parts += [
        pl.scan_parquet(sorted(found), glob=False).select(
            face_id="clip_id",
            subject_id="subject_id",
            video_id="video_id",
            duplicate_of=pl.lit(None, dtype=pl.String),
            split=pl.lit(split),
        )
        for split in SPLITS
        if (found := list((Path(path) / "clips").glob(f"{split}-*.parquet")))
    ]
    return splits.check(pl.concat(parts).collect()) if parts else []


def verify(path: str | Path) -> list[str]:
    """What differs from the manifest, one sentence per file; empty when all checksums hold.

    Raises:
        ReleaseError: there is no version at ``path``, or its manifest is damaged.
    """
    folder = Path(path)
    facts = versions.manifest(folder)
    damage = _sizes(folder, facts)
    for file, known in sorted(facts["files"].items()):
        target = folder / file
        whole = target.is_file() and target.stat().st_size == known["bytes"]
        if whole and file_sha256(str(target)) != known["sha256"]:
            damage.append(f"{file} holds other bytes than were written")
    there = {str(item.relative_to(folder)) for item in folder.rglob("*") if item.is_file()} - {
        versions.MANIFEST
    }
    damage += [f"{file} was added" for file in sorted(there - facts["files"].keys())]
    return damage


def _sizes(folder: Path, facts: dict[str, Any]) -> list[str]:
    damage = []
    for file, known in sorted(facts["files"].items()):
        target = folder / file
        if not target.is_file():
            damage.append(f"{file} is gone")
        elif (size := target.stat().st_size) != known["bytes"]:
            damage.append(f"{file} has {size} bytes instead of {known['bytes']}")
    return damage


def _damaged(path: Path, damage: list[str]) -> ReleaseError:
    return ReleaseError(
        f"{path.parent.name} {path.name} as it was built",
        got="; ".join(damage[:3]),
        hint="put the files back from a copy, or build a new version",
    )


def _entry(path: Path) -> Release:
    name, version = path.parent.name, path.name
    try:
        return Release(name, version, path, rows=versions.manifest(path)["rows"])
    except ReleaseError as error:
        return Release(name, version, path, rows=None, problem=str(error))
