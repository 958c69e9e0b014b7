"""Remove a data subject: replace versions that contain it by patches."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from warehouse.releases import clips, items, manifest, shards, versions
from warehouse.releases.build import SHARD_BYTES, write_version
from warehouse.releases.schema import (
    CONFIGS,
    FACE_FILES,
    ROWS,
    SYNTHETIC,
    UNRELEASED,
    VOTES,
    fit_rows,
    fit_votes,
)
from warehouse.releases.versions import VersionNumber
from warehouse.storage.home import Home

if TYPE_CHECKING:
    from warehouse.privacy.data_subject import DataSubject

_DERIVED = (
    "files", "checksums", "summary", "since", "curation", "clips", "synthetic", "domain_gap",
    "items",
)  # fmt: skip
"""Entries of a manifest that are computed again from the remaining rows."""

_ABOUT_ALL = pl.col("item_kind").is_in(["video", "picture", "dialogue"])
"""Items that are about everyone in their video."""

ERASED = "erased"
"""Reason code under which a patch counts the faces of erased data subjects."""


def remove_subject(home: Home, subject: DataSubject) -> dict[str, str | None]:
    """Remove a data subject from every version of every release.

    A version that contains or lists the subject is rewritten from its own files as its next patch
    (``v2`` as ``v2.1``). The old folder is deleted, and its row in ``releases`` names the patch.
    Other versions are not touched. After a kill, the next call continues.

    Returns:
        ``<name> <version>`` to the patch that replaced it, None if no face is left.

    Raises:
        ReleaseError: a version is damaged and cannot be rewritten; it is not changed.
    """
    found: dict[str, str | None] = {}
    for entry in sorted(home.releases.iterdir()) if home.releases.is_dir() else []:
        # Under the lock also what killed builds left is deleted.
        if not (versions.numbers(entry) or versions.drafts(entry)):
            continue
        with versions.locked(home, entry.name) as folder:
            versions.record_rows(home, entry.name)
            for number in versions.numbers(folder):
                if _contains(folder / str(number), subject):
                    found[f"{entry.name} {number}"] = _replace(home, folder, number, subject)
    return found


def _replace(home: Home, folder: Path, number: VersionNumber, subject: DataSubject) -> str | None:
    path = folder / str(number)
    patches = (
        str(n)
        for n in versions.numbers(folder)
        if manifest.read(folder / str(n)).get("replaces") == path.name
    )
    patch = next(patches, None) or _write_patch(home, folder, number, subject)
    versions.update_row(
        home, folder.name, str(number), withdrawn_at=datetime.now(UTC), replaced_by=patch
    )
    versions.delete(path)
    return patch


def _contains(path: Path, subject: DataSubject) -> bool:
    contents = manifest.read(path)
    members = contents["splits"].get("members", {})
    left_out = {face for faces in contents.get("left_out", {}).values() for face in faces}
    if (
        not set(subject.spellings).isdisjoint(members.get(subject.kind, {}))
        or not _subject_ids(subject).isdisjoint(members.get("subject", {}))
        or not left_out.isdisjoint(subject.faces)
        or not set(members.get("video", {})).isdisjoint(subject.videos)
    ):
        return True
    ids = ("face_id", "track_id", "video_id", "subject_id", "duplicate_of")
    for config, folder in CONFIGS.items():
        for file in sorted(path.glob(f"{folder}*.parquet")):
            columns = set(pl.read_parquet_schema(file))
            found = _of_subject(subject, [name for name in ids if name in columns])
            if config == "clips":
                found |= _may_be_heard(subject, columns)
            if config in items.NAMES:
                found |= _may_show(subject, config, columns)
            if pl.scan_parquet(file, glob=False).filter(found).select(pl.len()).collect().item():
                return True
    return False


def _write_patch(
    home: Home, folder: Path, number: VersionNumber, subject: DataSubject
) -> str | None:
    path = folder / str(number)
    old = manifest.read(path)
    rows, erased = _remaining_rows(home, path, subject)
    if rows.filter(pl.col("split") != SYNTHETIC).is_empty():
        return None
    votes = _remaining_votes(path, subject)
    sequences, clip_flow = _remaining_clips(home, path, subject, rows=rows)
    remaining = _remaining_items(home, path, subject, clip_ids=sequences["clip_id"])
    patch = versions.next_patch(home, folder.name, number.major)
    write_version(
        home,
        folder / str(patch),
        rows=rows,
        votes=votes,
        shard_bytes=old["inputs"].get("shard_bytes", SHARD_BYTES),
        contents=_contents(old, patch, subject, rows=rows, votes=votes, erased=erased),
        sequences=sequences,
        clip_flow=clip_flow,
        item_rows=remaining,
    )
    return str(patch)


def _contents(
    old: dict[str, Any],
    patch: VersionNumber,
    subject: DataSubject,
    *,
    rows: pl.DataFrame,
    votes: pl.DataFrame,
    erased: int,
) -> dict[str, Any]:
    """Return the old manifest without the subject and derived entries."""
    real = rows.filter(pl.col("split") != SYNTHETIC).height
    removed = {"subject": _subject_ids(subject), "video": {*subject.videos, _own_video(subject)}}
    members = {
        kind: {name: split for name, split in names.items() if name not in removed[kind]}
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
    return {key: value for key, value in old.items() if key not in _DERIVED} | {
        "patch": patch.patch,
        "label": str(patch),
        "parent_label": None,
        "replaces": str(VersionNumber(old["version"], old.get("patch", 0))),
        "use": old.get("use"),
        # Counts of groups include the subject, and a group of one would tell what it was.
        "facts": {key: value for key, value in old["facts"].items() if key != "groups"},
        "rows": real,
        "inputs": inputs,
        "counts": counts,
        "left_out": {
            reason: [face for face in faces if face not in set(subject.faces)]
            for reason, faces in old.get("left_out", {}).items()
        },
        "splits": {"members": members},
    }


def _remaining_rows(home: Home, path: Path, subject: DataSubject) -> tuple[pl.DataFrame, int]:
    """Return the remaining rows and the number of erased ones."""
    parts, erased = [], 0
    for split, pattern in FACE_FILES.items():
        for file in sorted(path.glob(pattern)):
            frame = pl.read_parquet(file, glob=False)
            remaining = frame.filter(~_of_subject(subject, ["face_id", "video_id", "subject_id"]))
            erased += frame.height - remaining.height
            crops = [shards.restore_crop(home, image) for image in remaining["image"]]
            parts.append(
                remaining.drop("image").with_columns(
                    pl.Series("crop", crops, dtype=pl.String), split=pl.lit(split)
                )
            )
    whole = pl.concat(parts).with_columns(
        duplicate_of=pl.when(~pl.col("duplicate_of").is_in(subject.faces)).then("duplicate_of")
    )
    if whole.is_empty():
        return whole, erased
    names = [name for name in ROWS if name in whole.columns]
    fitted = fit_rows(whole.select(names)).drop(*UNRELEASED)
    return fitted.join(whole.select("face_id", "split"), on="face_id").sort("face_id"), erased


def _remaining_votes(path: Path, subject: DataSubject) -> pl.DataFrame:
    files = sorted((path / "votes").glob("votes-*.parquet"))
    if not files:
        return pl.DataFrame(schema=VOTES)
    votes = pl.concat([pl.read_parquet(file, glob=False) for file in files])
    return fit_votes(votes.filter(~_of_subject(subject, ["face_id"])))


def _remaining_clips(
    home: Home, path: Path, subject: DataSubject, *, rows: pl.DataFrame
) -> tuple[pl.DataFrame, str | None]:
    """Return the remaining clips; those of shared videos lose sound and words."""
    sequences, method = clips.read_clips(home, path)
    remaining = sequences.filter(~_of_subject(subject, ["track_id", "video_id", "subject_id"]))
    shared = pl.col("video_id").is_in(pl.Series(subject.shared, dtype=pl.String).implode())
    muted = remaining.with_columns(
        pl.when(~shared).then(pl.col(name)).otherwise(None).alias(name)
        for name in ("sound", "words")
    )
    return muted.join(rows.select("video_id").unique(), on="video_id", how="semi"), method


def _remaining_items(
    home: Home, path: Path, subject: DataSubject, *, clip_ids: pl.Series
) -> items.Items:
    """Return the remaining segments and what is about them.

    Segments that name the subject are removed. Others of videos that also show it lose video,
    sound, words and texts, in which it may be.
    """
    shared = pl.col("video_id").is_in(pl.Series(subject.shared, dtype=pl.String).implode())

    def keep(frame: pl.DataFrame) -> pl.DataFrame:
        left = frame.filter(~_of_subject(subject, ["video_id"]))
        if "author_kind" in frame.columns:
            return left.filter(~shared)
        if "item_kind" in frame.columns:
            return left.filter(~(shared & _ABOUT_ALL))
        if "subject_ids" not in frame.columns:
            return left
        return left.filter(~_names_subject(subject)).with_columns(
            pl.when(~shared).then(pl.col(name)).alias(name)
            for name in ("video", "audio", "transcript")
            if name in frame.columns
        )

    found = items.read(home, path, keep)
    return items.released(found, found.segments.select("segment_id"), {"clip": clip_ids})


def _may_show(subject: DataSubject, config: str, columns: set[str]) -> pl.Expr:
    """Match segments that name the subject, and all that may be about it."""
    shared = pl.col("video_id").is_in(pl.Series(subject.shared, dtype=pl.String).implode())
    if config == "texts":
        return shared
    if config == "spans":
        return shared & _ABOUT_ALL
    if config != "segments":
        return pl.lit(False)
    media = {"video", "audio", "transcript"} & columns
    holds = pl.any_horizontal(pl.col(name).is_not_null() for name in sorted(media))
    return _names_subject(subject) | (shared & holds).fill_null(False)


def _names_subject(subject: DataSubject) -> pl.Expr:
    """Match segments that name the subject, or in which it speaks."""
    ids = sorted(_subject_ids(subject))
    seen = pl.col("subject_ids").list.eval(pl.element().is_in(ids)).list.any()
    return seen.fill_null(False) | pl.col("speaker").is_in(ids).fill_null(False)


def _may_be_heard(subject: DataSubject, columns: set[str]) -> pl.Expr:
    """Match clips of shared videos with sound or words."""
    shared = pl.col("video_id").is_in(pl.Series(subject.shared, dtype=pl.String).implode())
    audible = pl.col("words").list.len() > 0
    if "audio" in columns:
        audible |= pl.col("audio").is_not_null()
    return shared & audible.fill_null(False)


def _of_subject(subject: DataSubject, columns: list[str]) -> pl.Expr:
    ids = {
        "face_id": subject.faces, "duplicate_of": subject.faces, "track_id": subject.tracks,
        "video_id": subject.videos, "subject_id": sorted(_subject_ids(subject)),
    }  # fmt: skip
    return pl.any_horizontal(
        pl.col(name).is_in(pl.Series(ids[name], dtype=pl.String).implode()).fill_null(False)
        for name in columns
    )


def _subject_ids(subject: DataSubject) -> set[str]:
    """Return the spellings of the subject id.

    A video without named people is a subject of its own (35_subjects.sql).
    """
    return set(subject.spellings) if subject.kind == "subject" else {f"video-{subject.name}"}


def _own_video(subject: DataSubject) -> str:
    return subject.name.removeprefix("video-") if subject.kind == "subject" else subject.name
