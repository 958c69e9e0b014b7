"""Build a release: immutable, and the same bytes from the same inputs."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import polars as pl

from warehouse.errors import ReleaseError
from warehouse.ids import sha256_of
from warehouse.releases import (
    clips,
    dataset_card,
    diff,
    domain_gap,
    eligibility,
    items,
    manifest,
    report,
    shards,
    splits,
    versions,
)
from warehouse.releases.schema import (
    CONFIGS,
    PLACES,
    SPLITS,
    SYNTHETIC,
    check_facts,
    check_name,
    fit_rows,
    fit_votes,
)
from warehouse.releases.statistics import curation, summarise
from warehouse.releases.verification import check, verify
from warehouse.releases.versions import Release
from warehouse.storage.home import Home

SHARD_BYTES = 256 << 20
"""Image bytes per Parquet file. Memory holds one row group of 16 MB at a time."""


def build(
    home: str | Path | Home,
    *,
    name: str,
    rows: pl.DataFrame,
    votes: pl.DataFrame,
    facts: Mapping[str, Any],
    settings: Mapping[str, Any],
    code_version: str,
    drop_flagged: bool = False,
    use: str | None = None,
    drop_forbidden: bool = False,
    require_consent: bool = False,
    today: date | None = None,
    shard_bytes: int = SHARD_BYTES,
    sequences: pl.DataFrame | None = None,
    clip_flow: str | None = None,
    synthetic: str = "config",
    segment_items: Mapping[str, pl.DataFrame] | None = None,
    declared_splits: Mapping[str, str] | None = None,
) -> Release:
    """Write the next version, unless the newest one has the same inputs.

    A face needs at least one vote. A synthetic face needs a soft label. The
    manifest counts the other faces by reason. All votes are written, including those of faces left
    out, except votes on faces without consent.

    Args:
        rows: columns of ``schema.ROWS``, one row per curated face.
        votes: columns of ``schema.VOTES``, one row per current vote.
        facts: JSON for card and report that rows and votes do not contain. Known keys, all
            optional: ``title`` and ``description`` (text), ``stages`` (list of ``stage, verdict,
            reason, n``), ``audits`` (list of ``audit, n, flagged, score, note``), ``models`` (list
            of ``name, role, licence``), ``machine_raters`` (list of names), ``rater_quality``
            (list of ``rater_id, n_votes, weight, agreement``), and for the datasheet the texts
            ``motivation``, ``collection``, ``consent``, ``annotators``, ``soft_label_method``,
            ``au_provenance`` and the list ``limits``. Facts are inputs: times or run ids would
            make every run a new version.
        settings: of the run, recorded in the manifest.
        code_version: recorded; a change of it alone makes no new version.
        drop_flagged: leave out label issues and open-set faces instead of flagging them.
        use: intended use, ``commercial`` or ``research``. Rows and models whose terms forbid it
            are refused. If None, nothing is refused and the card states the terms.
        drop_forbidden: leave out forbidden rows instead of refusing them.
        require_consent: leave out real faces of videos without a statement of consent.
        today: day on which consent must hold; by default the current UTC date.
        shard_bytes: image bytes per file.
        sequences: columns of ``clips.CLIPS``, one row per clip. Clips of released videos become
            config ``clips``. Without any there is no such config.
        clip_flow: method of optical flow between the frames of clips (``clips.FLOW_METHODS``).
        synthetic: ``config`` puts synthetic faces in a config of their own, ``train`` among the
            real faces of train. A network that sees both may learn to tell them apart by size and
            color instead of the expression; the card states how easy that is.
        segment_items: config of ``items.NAMES`` to rows. Segments of videos whose consent and
            licence allow it, with votes, texts and spans, become configs of their own.
        declared_splits: video to the split that its data set declares. It is kept unless it would
            divide a subject or near duplicates, or an earlier version decided otherwise.

    Raises:
        ReleaseError: the name, rows, votes or facts are invalid; no face is eligible; the use is
            forbidden; a crop is missing or changed; the newest version was changed by hand.
            Earlier versions stay unchanged, and an incomplete version is never visible.
    """
    place = Home.at(home)
    check_name(name)
    check_facts(facts)
    clips.check_flow_method(clip_flow)
    if synthetic not in PLACES:
        raise ReleaseError(
            f"The place of synthetic faces is not one of {', '.join(PLACES)}",
            got=repr(synthetic),
            hint="set RISORIUS_RELEASE_SYNTHETIC to one of them",
        )
    fitted, cast = fit_rows(rows), fit_votes(votes)
    day = today or datetime.now(UTC).date()
    eligible = eligibility.decide(
        fitted,
        models=facts.get("models", []),
        drop_flagged=drop_flagged,
        use=use,
        drop_forbidden=drop_forbidden,
        today=day,
        require_consent=require_consent,
    )
    has_consent = ~pl.col("face_id").is_in(eligible.without_consent.implode())
    cast = cast.filter(has_consent)
    # Consent counts by the rows it excludes: another date alone makes no new version.
    inputs = manifest.inputs(
        fitted.filter(has_consent).drop("consent"),
        cast,
        facts=facts,
        settings=settings,
        drop_flagged=drop_flagged,
    ) | {"shard_bytes": shard_bytes, "use": use, "left_out": eligible.counts}
    clip_rows = clips.in_released_videos(clips.fit_clips(sequences), eligible.rows)
    made = pl.col("source") == "synthetic"
    if eligible.rows.filter(~made).is_empty():
        raise ReleaseError(
            "No real face can be released",
            got=f"{len(eligible.rows)} synthetic faces alone",
            hint="collect votes with `risorius label pull`",
        )
    if not eligible.rows.filter(made).is_empty():
        inputs |= {"synthetic": synthetic}
    if clip_rows.height:
        inputs |= {"clips": clips.fingerprint(place, clip_rows), "clip_flow": clip_flow}
    given = items.fit(segment_items)
    chosen, dropped_segments = eligibility.decide_segments(
        given.segments,
        use=use,
        drop_forbidden=drop_forbidden,
        today=day,
        require_consent=require_consent,
    )
    released = set(eligible.rows["video_id"])
    with_segments = given.segments.join(chosen, on="segment_id", how="semi")
    released |= set(with_segments["video_id"])
    declared = {one: s for one, s in sorted((declared_splits or {}).items()) if one in released}
    if declared:
        inputs |= {"declared_splits": sha256_of([repr(declared).encode()])[:16]}
    item_rows = items.released(given, chosen, {"clip": clip_rows["clip_id"]})
    if not item_rows.is_empty:
        inputs |= {"items": items.fingerprint(place, item_rows), "left_out_items": dropped_segments}
    with versions.locked(place, name) as folder:
        versions.record_rows(place, name)
        latest = versions.numbers(folder)[-1:]
        before = folder / str(latest[0]) if latest else None
        if before:
            # The next version takes its splits from the manifest, and is compared with the faces.
            check(before, CONFIGS["default"], CONFIGS["synthetic"])
        earlier = manifest.read(before) if before else None
        if before and earlier is not None and earlier["inputs"] == inputs:
            return _unchanged(name, before, rows=earlier["rows"])
        assigned = splits.assign(
            eligible.rows,
            earlier=earlier["splits"]["members"] if earlier is not None else {},
            declared=declared,
        )
        if leaks := splits.check(assigned.rows):
            raise ReleaseError(
                "A subject, video or near duplicate is in two splits",
                got="; ".join(leaks[:3]),
                hint="report this as a bug in warehouse/releases/splits.py",
            )
        # Faces first: segments never move a face to another split.
        placed = splits.assign(
            items.members(item_rows), earlier=assigned.members, declared=declared
        )
        unplaced = placed.conflicts["face_id"].unique()
        released_clips = clips.assign_splits(clip_rows, assigned.rows, assigned.conflicts)
        item_rows = items.released(
            item_rows,
            chosen.filter(~pl.col("segment_id").is_in(unplaced.implode())),
            {"clip": released_clips["clip_id"]},
        )
        if len(unplaced):
            # Not in place: the inputs, which the next build compares, hold the counts before.
            dropped_segments = dropped_segments | {splits.CONFLICT: len(unplaced)}
        if synthetic == "config":
            split = pl.when(made).then(pl.lit(SYNTHETIC)).otherwise("split").alias("split")
            assigned = replace(assigned, rows=assigned.rows.with_columns(split))
        number = versions.next_number(place, name)
        real = assigned.rows.filter(pl.col("split") != SYNTHETIC)
        left_out = eligible.left_out | dict.fromkeys(assigned.conflicts["face_id"], splits.CONFLICT)
        write_version(
            place,
            folder / str(number),
            rows=assigned.rows,
            votes=cast,
            shard_bytes=shard_bytes,
            sequences=released_clips,
            clip_flow=clip_flow,
            item_rows=items.assign_splits(item_rows, placed.members["video"]),
            before=diff.read_faces(before) if before else None,
            contents={
                "name": name,
                "version": number.major,
                "patch": number.patch,
                "label": str(number),
                "parent": latest[0].major if latest else None,
                "parent_label": str(latest[0]) if latest else None,
                "replaces": None,
                "use": use,
                "rows": len(real),
                "inputs": inputs,
                "code_version": code_version,
                "settings": dict(settings),
                "facts": dict(facts),
                "counts": _counts(facts, assigned, eligible.counts),
                "left_out": _by_reason(left_out),
                "curation": curation(_labelled(fitted, eligible)),
                "splits": {"members": placed.members}
                | ({"leaks": len(assigned.leaks)} if declared else {}),
                **({"segments_left_out": dropped_segments} if dropped_segments else {}),
            },
        )
        path = folder / str(number)
        return Release(name, path.name, path, rows=len(real), created=True)


def write_version(
    home: Home,
    path: Path,
    *,
    rows: pl.DataFrame,
    votes: pl.DataFrame,
    shard_bytes: int,
    contents: dict[str, Any],
    before: pl.DataFrame | None = None,
    sequences: pl.DataFrame | None = None,
    clip_flow: str | None = None,
    item_rows: items.Items | None = None,
) -> None:
    """Write a version as a draft, rename it to ``path`` and record it.

    Call it under ``versions.locked``.

    Args:
        rows: the released faces, with ``split``: one of ``schema.FACE_FILES``.
        contents: the manifest so far; summary, sizes, changes and checksums are added.
        before: faces of the version before, as ``diff.read_faces`` returns them.
        sequences: clips, as ``clips.assign_splits`` returns them.
        item_rows: segments and what is about them, as ``items.assign_splits`` returns them.

    Raises:
        ReleaseError: the disk is full or read-only, or a crop is missing or changed.
    """
    draft = versions.new_draft(path.parent)
    try:
        files = _write_configs(
            draft, home, rows, votes, sequences, contents,
            shard_bytes=shard_bytes, clip_flow=clip_flow,
        )  # fmt: skip
        segments = None
        if item_rows is not None and not item_rows.is_empty:
            written, contents["items"] = items.write(
                draft, item_rows, home=home, shard_bytes=shard_bytes
            )
            files |= written
            segments = item_rows.segments
        models = contents["facts"].get("models", [])
        summary = summarise(rows, votes, models=models, segments=segments)
        contents.setdefault("curation", curation(rows))
        contents["domain_gap"] = domain_gap.measure(home, rows)
        contents["splits"]["stratification"] = summary["stratification"]
        contents["summary"] = summary
        contents["since"] = None
        if before is not None:
            contents["since"] = diff.compare(before, rows, left_out=contents["left_out"])
        stored = {
            prefix.rstrip("/"): sum(
                (draft / file).stat().st_size for file in files if file.startswith(prefix)
            )
            for prefix in CONFIGS.values()
        }
        (draft / dataset_card.FILE).write_text(dataset_card.render(contents, stored=stored))
        (draft / report.FILE).write_text(
            report.render(contents, rows=rows, votes=votes, home=home, sequences=sequences)
        )
        sums = manifest.checksums(draft, [*files, dataset_card.FILE, report.FILE])
        contents["checksums"] = manifest.by_config(sums)
        contents["files"] = {
            file: facts | ({"rows": files[file]} if file in files else {})
            for file, facts in sums.items()
        }
        manifest.write(draft, contents)
        versions.commit(draft, path)
    except OSError as error:
        raise ReleaseError(
            f"{path.parent} cannot be written",
            got=error.strerror or str(error),
            hint="free space or choose another home; earlier versions are untouched",
        ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    versions.record_rows(home, path.parent.name)


def _write_configs(
    draft: Path,
    home: Home,
    rows: pl.DataFrame,
    votes: pl.DataFrame,
    sequences: pl.DataFrame | None,
    contents: dict[str, Any],
    *,
    shard_bytes: int,
    clip_flow: str | None,
) -> dict[str, int]:
    """Write the Parquet files, add sizes to ``contents``, count rows.

    Returns:
        rows per file.
    """
    files: dict[str, int] = {}
    sizes: dict[str, dict[str, int]] = {}
    for split in SPLITS:
        part = rows.filter(pl.col("split") == split)
        if part.is_empty():
            # `datasets` cannot load a split without rows, so the card does not list it.
            continue
        written, num_bytes = shards.write_faces(
            draft, part, home=home, stem=f"data/{split}", shard_bytes=shard_bytes
        )
        sizes[split] = {"rows": len(part), "bytes": num_bytes}
        files |= written
    contents["synthetic"] = None
    made = rows.filter(pl.col("split") == SYNTHETIC)
    if not made.is_empty():
        written, num_bytes = shards.write_faces(
            draft, made, home=home, stem="synthetic/train", shard_bytes=shard_bytes
        )
        contents["synthetic"] = {"rows": len(made), "bytes": num_bytes}
        files |= written
    written, num_bytes = shards.write_votes(draft, votes, shard_bytes=shard_bytes)
    sizes["votes"] = {"rows": len(votes), "bytes": num_bytes}
    files |= written
    contents["splits"]["sizes"] = sizes
    contents["clips"] = None
    if sequences is not None and sequences.height:
        written, contents["clips"] = clips.write_clips(
            draft, sequences, home=home, shard_bytes=shard_bytes, method=clip_flow
        )
        files |= written
    return files


def _counts(
    facts: Mapping[str, Any], assigned: splits.Assignment, dropped: Mapping[str, int]
) -> list[dict[str, Any]]:
    """Count by stage, verdict and reason; the release is the last stage."""
    own: list[tuple[str, str | None, int]] = [("kept", None, len(assigned.rows))]
    own += [("dropped", why, n) for why, n in sorted(dropped.items())]
    if len(assigned.conflicts):
        own.append(("dropped", splits.CONFLICT, len(assigned.conflicts)))
    return [
        *facts.get("stages", []),
        *(
            {"stage": "release", "verdict": verdict, "reason": reason, "n": n}
            for verdict, reason, n in own
        ),
    ]


def _labelled(fitted: pl.DataFrame, eligible: eligibility.Eligibility) -> pl.DataFrame:
    """Return the eligible rows and those that only a flag left out."""
    flagged = [
        face for face, why in eligible.left_out.items() if why in ("label_issue", "open_set")
    ]
    return pl.concat([eligible.rows, fitted.filter(pl.col("face_id").is_in(flagged))])


def _by_reason(left_out: Mapping[str, str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for face, reason in sorted(left_out.items()):
        found.setdefault(reason, []).append(face)
    return found


def _unchanged(name: str, path: Path, *, rows: int) -> Release:
    damage = verify(path)
    if damage:
        raise ReleaseError(
            f"{name} {path.name} was changed after it was built",
            got="; ".join(damage[:3]),
            hint="restore the files from a copy, or move the folder away and build again",
        )
    return Release(name, path.name, path, rows=rows)
