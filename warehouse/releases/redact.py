"""A version without somebody who left: a patch beside it takes its place, and it is withdrawn."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from warehouse.errors import ReleaseError
from warehouse.releases import clips, manifest, shards, versions
from warehouse.releases.build import SHARD_BYTES, write
from warehouse.releases.schema import ROWS, SPLITS, UNRELEASED, VOTES, fit_rows, fit_votes
from warehouse.releases.versions import Number
from warehouse.storage.home import Home

if TYPE_CHECKING:
    from warehouse.privacy.data_subject import DataSubject

ERASED = "erased"
"""The reason under which a patch counts the faces that went with somebody who left."""


def without(home: Home, leaver: DataSubject) -> dict[str, str | None]:
    """Take ``leaver`` out of every version of every release.

    A version that holds or remembers them is written anew as its next patch (``v2`` as ``v2.1``)
    from its own files, and withdrawn: its folder goes, its row in ``releases`` says what took its
    place. Killed midway, it goes on where it was. Versions without them are not touched.

    Returns:
        ``<name> <version>`` to what replaced it, None where nobody is left in it.

    Raises:
        ReleaseError: a version is damaged and cannot be rewritten; it stays as it is.
    """
    found: dict[str, str | None] = {}
    for entry in sorted(home.releases.iterdir()) if home.releases.is_dir() else []:
        if not versions.numbers(entry):
            continue
        with versions.locked(home, entry.name) as folder:
            versions.record(home, entry.name)
            for number in versions.numbers(folder):
                if _holds(folder / str(number), leaver):
                    successor = _replace(home, folder, number, leaver)
                    found[f"{entry.name} {number}"] = successor
    return found


def _replace(home: Home, folder: Path, number: Number, leaver: DataSubject) -> str | None:
    path = folder / str(number)
    successor = next(
        (str(n) for n in versions.numbers(folder) if _took(folder / str(n), path)), None
    )
    if successor is None:
        successor = _patch(home, folder, number, leaver)
    when = datetime.now(UTC)
    versions.note(home, folder.name, str(number), withdrawn_at=when, replaced_by=successor)
    versions.withdraw(path)
    return successor


def _took(path: Path, old: Path) -> bool:
    return versions.manifest(path).get("replaces") == old.name


def _holds(path: Path, leaver: DataSubject) -> bool:
    facts = versions.manifest(path)
    members = facts["splits"].get("members", {})
    named = {face for faces in facts.get("left_out", {}).values() for face in faces}
    remembered = (
        leaver.name in members.get(leaver.kind, {})
        or not named.isdisjoint(leaver.faces)
        or not set(members.get("video", {})).isdisjoint(leaver.videos)
    )
    ids = ("face_id", "track_id", "video_id", "subject_id", "duplicate_of")
    heard = any(
        pl.scan_parquet(file, glob=False)
        .filter(_heard(leaver, file))
        .select(pl.len())
        .collect()
        .item()
        for file in sorted((path / "clips").glob("*.parquet"))
    )
    return (
        remembered
        or heard
        or any(
            pl.scan_parquet(file, glob=False)
            .filter(_theirs(leaver, [name for name in ids if name in _columns(file)]))
            .select(pl.len())
            .collect()
            .item()
            for file in _files(path)
        )
    )


def _patch(home: Home, folder: Path, number: Number, leaver: DataSubject) -> str | None:
    path = folder / str(number)
    old = versions.manifest(path)
    rows, erased = _rows(home, path, leaver)
    if rows.is_empty():
        return None
    votes = _votes(path, leaver)
    label = versions.next_patch(home, folder.name, number.major)
    contents = _contents(old, label, leaver, rows=rows, votes=votes, erased=erased)
    draft = versions.draft(folder)
    try:
        shard_bytes = old["inputs"].get("shard_bytes", SHARD_BYTES)
        moving, method = _clips(home, path, leaver, rows=rows)
        write(
            draft,
            home,
            rows=rows,
            votes=votes,
            shard_bytes=shard_bytes,
            contents=contents,
            sequences=moving,
            clip_flow=method,
        )
        versions.publish(draft, folder / str(label))
    except OSError as error:
        raise ReleaseError(
            f"room and the right to write {folder}",
            got=error.strerror or str(error),
            hint="free space and run the same command again",
        ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    versions.record(home, folder.name)
    return str(label)


def _contents(
    old: dict[str, Any],
    label: Number,
    leaver: DataSubject,
    *,
    rows: pl.DataFrame,
    votes: pl.DataFrame,
    erased: int,
) -> dict[str, Any]:
    """The old manifest brought down to those who stay; what ``build.write`` adds is left out."""
    gone = {"subject": {_subject(leaver)}, "video": {*leaver.videos, *_derived(leaver)}}
    members = {
        kind: {name: split for name, split in names.items() if name not in gone[kind]}
        for kind, names in old["splits"].get("members", {}).items()
    }
    own = [row for row in old["counts"] if row["stage"] == "release"]
    counts = [row for row in old["counts"] if row["stage"] != "release"]
    for row in own:
        counts.append(row | {"n": rows.height} if row["verdict"] == "kept" else row)
    if erased:
        counts.append({"stage": "release", "verdict": "dropped", "reason": ERASED, "n": erased})
    inputs = old["inputs"] | {
        "rows": manifest.fingerprint(rows.drop("split")),
        "votes": manifest.fingerprint(votes),
    }
    return {
        key: value
        for key, value in old.items()
        if key not in ("files", "checksums", "summary", "since", "curation", "clips")
    } | {
        "patch": label.patch,
        "label": str(label),
        "parent_label": None,
        "replaces": str(Number(old["version"], old.get("patch", 0))),
        "use": old.get("use"),
        "rows": rows.height,
        "inputs": inputs,
        "counts": counts,
        "left_out": {
            reason: [face for face in faces if face not in set(leaver.faces)]
            for reason, faces in old.get("left_out", {}).items()
        },
        "splits": {"members": members},
    }


def _rows(home: Home, path: Path, leaver: DataSubject) -> tuple[pl.DataFrame, int]:
    """Rows that stay, with ``crop`` and ``split``, and how many go; one file at a time."""
    parts, erased = [], 0
    for split in SPLITS:
        for file in sorted((path / "data").glob(f"{split}-*.parquet")):
            frame = pl.read_parquet(file, glob=False)
            stay = frame.filter(~_theirs(leaver, ["face_id", "video_id", "subject_id"]))
            erased += frame.height - stay.height
            crops = pl.Series(
                "crop", [shards.restored(home, one) for one in stay["image"]], dtype=pl.String
            )
            parts.append(stay.drop("image").with_columns(crops, split=pl.lit(split)))
    whole = pl.concat(parts).with_columns(
        duplicate_of=pl.when(~pl.col("duplicate_of").is_in(leaver.faces)).then("duplicate_of")
    )
    names = [name for name in ROWS if name in whole.columns]
    if whole.is_empty():
        return whole, erased
    fitted = fit_rows(whole.select(names)).drop(*UNRELEASED)
    return fitted.join(whole.select("face_id", "split"), on="face_id").sort("face_id"), erased


def _votes(path: Path, leaver: DataSubject) -> pl.DataFrame:
    files = sorted((path / "votes").glob("votes-*.parquet"))
    frames = [pl.read_parquet(file, glob=False) for file in files]
    if not frames:
        return pl.DataFrame(schema=VOTES)
    return fit_votes(pl.concat(frames).filter(~_theirs(leaver, ["face_id"])))


def _clips(
    home: Home, path: Path, leaver: DataSubject, *, rows: pl.DataFrame
) -> tuple[pl.DataFrame, str | None]:
    """Clips that stay; those of a video in which others are seen lose sound and words."""
    moving, method = clips.again(home, path)
    stay = moving.filter(~_theirs(leaver, ["track_id", "video_id", "subject_id"]))
    shared = pl.col("video_id").is_in(pl.Series(leaver.shared, dtype=pl.String).implode())
    mute = stay.with_columns(
        pl.when(~shared).then(pl.col(name)).otherwise(None).alias(name)
        for name in ("sound", "words")
    )
    return mute.join(rows.select("video_id").unique(), on="video_id", how="semi"), method


def _heard(leaver: DataSubject, file: Path) -> pl.Expr:
    """Clips of videos they are seen in beside others, with sound or words that may be theirs."""
    shared = pl.col("video_id").is_in(pl.Series(leaver.shared, dtype=pl.String).implode())
    said = [pl.col("words").list.len() > 0]
    said += [pl.col("audio").is_not_null()] if "audio" in _columns(file) else []
    return shared & pl.any_horizontal(said).fill_null(False)


def _theirs(leaver: DataSubject, columns: list[str]) -> pl.Expr:
    ids = {
        "face_id": leaver.faces, "duplicate_of": leaver.faces, "track_id": leaver.tracks,
        "video_id": leaver.videos, "subject_id": (_subject(leaver),),
    }  # fmt: skip
    return pl.any_horizontal(
        pl.col(name).is_in(pl.Series(ids[name], dtype=pl.String).implode()).fill_null(False)
        for name in columns
    )


def _subject(leaver: DataSubject) -> str:
    """A video whose people nobody named stands for a subject of its own (35_subjects.sql)."""
    return leaver.name if leaver.kind == "subject" else f"video-{leaver.name}"


def _derived(leaver: DataSubject) -> set[str]:
    return {leaver.name.removeprefix("video-")} if leaver.kind == "subject" else {leaver.name}


def _columns(file: Path) -> list[str]:
    return list(pl.read_parquet_schema(file))


def _files(path: Path) -> list[Path]:
    return sorted(
        file for place in shards.CONFIGS.values() for file in path.glob(f"{place}*.parquet")
    )
