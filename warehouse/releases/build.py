"""Build a release: written once, never changed, the same bytes from the same inputs."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import polars as pl

from warehouse.errors import ReleaseError
from warehouse.releases import (
    clips,
    dataset_card,
    diff,
    eligibility,
    manifest,
    optical_flow,
    report,
    shards,
    splits,
    versions,
)
from warehouse.releases.coverage import curation
from warehouse.releases.load import verify
from warehouse.releases.schema import SPLITS, check_facts, check_name, fit_rows, fit_votes
from warehouse.releases.statistics import summarise
from warehouse.releases.versions import Release
from warehouse.storage.home import Home

SHARD_BYTES = 256 << 20
"""Pictures per Parquet file; a row group holds 16 MB, and that is what stands in memory."""


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
    today: date | None = None,
    shard_bytes: int = SHARD_BYTES,
    sequences: pl.DataFrame | None = None,
    clip_flow: str | None = None,
) -> Release:
    """Write ``releases/<name>/v<N>``, unless the newest version was made from the same inputs.

    A face enters with at least one vote; a synthetic one with a soft label, into train alone. The
    others are counted in the manifest. Votes are written as given, also those of faces left out,
    but for those whose people do not consent.

    Args:
        rows: columns of ``contract.ROWS``, one row per curated face.
        votes: columns of ``contract.VOTES``, one row per vote that stands.
        facts: what the tables know and rows and votes do not tell, for card and report. Any JSON;
            known keys, all optional: ``title`` and ``description`` (text), ``stages`` (list of
            ``stage, verdict, reason, n``), ``audits`` (list of ``audit, n, flagged, score,
            note``), ``models`` (list of ``name, role, licence``), ``machine_raters`` (list of
            names), ``rater_quality`` (list of ``rater_id, n_votes, weight, agreement``), and text
            for the datasheet: ``motivation``, ``collection``, ``consent``, ``annotators``,
            ``soft_label_method``, ``au_provenance``, and ``limits`` (list of text). They count as
            input: no times and no run ids, or every run makes a version.
        settings: of the run, recorded in the manifest.
        code_version: recorded; alone it makes no new version.
        drop_flagged: leave out label issues and open-set faces instead of flagging them.
        use: ``commercial`` or ``research``: what the release is wanted for; rows and models whose
            terms forbid it are refused. Without it nothing is refused and the terms are stated.
        drop_forbidden: leave such rows out instead.
        today: the day on which consent must hold; by default the current one (UTC).
        shard_bytes: pictures per file.
        sequences: columns of ``clips.CLIPS``, one row per clip: they become config ``clips``, as
            far as their videos have a face in the release. Without any there is no such config.
        clip_flow: add optical flow to clips, by a method of ``optical_flow.METHODS``.

    Raises:
        ReleaseError: the name, rows, votes or facts do not fit; nothing can be released; the use
            is forbidden; a crop is gone or changed; the newest version was changed by hand.
            Earlier versions stay as they are, and no half-made one is ever visible.
    """
    place = Home.at(home)
    check_name(name)
    check_facts(facts)
    optical_flow.check(clip_flow)
    given, cast = fit_rows(rows), fit_votes(votes)
    admitted = eligibility.admit(
        given,
        models=facts.get("models", []),
        drop_flagged=drop_flagged,
        use=use,
        drop_forbidden=drop_forbidden,
        today=today or datetime.now(UTC).date(),
    )
    kept, cast = admitted.rows, cast.filter(~pl.col("face_id").is_in(admitted.silent.implode()))
    # Consent counts by who it lets in: the day alone makes no new version.
    wanted = manifest.inputs(
        given.filter(~pl.col("face_id").is_in(admitted.silent.implode())).drop("consent"),
        cast,
        facts=facts,
        settings=settings,
        drop_flagged=drop_flagged,
    ) | {"shard_bytes": shard_bytes, "use": use, "left_out": admitted.counts}
    moving = clips.entering(clips.fit(sequences), kept)
    if moving.height:
        wanted |= {"clips": clips.fingerprint(place, moving), "clip_flow": clip_flow}
    with versions.locked(place, name) as folder:
        versions.record(place, name)
        latest = versions.numbers(folder)[-1:]
        before = folder / str(latest[0]) if latest else None
        earlier = versions.manifest(before) if before else None
        if before and earlier is not None and earlier["inputs"] == wanted:
            return _unchanged(name, before, rows=earlier["rows"])
        assigned = splits.assign(
            kept, earlier=earlier["splits"]["members"] if earlier is not None else {}
        )
        splits.refuse_leaks(assigned.rows)
        number = versions.next_number(place, name)
        draft = versions.draft(folder)
        left_out = dict(admitted.left_out)
        left_out |= dict.fromkeys(assigned.conflicts["face_id"], splits.CONFLICT)
        try:
            write(
                draft,
                place,
                rows=assigned.rows,
                votes=cast,
                shard_bytes=shard_bytes,
                sequences=clips.divided(moving, assigned.rows, assigned.conflicts),
                clip_flow=clip_flow,
                before=diff.faces_of(before) if before else None,
                contents={
                    "name": name,
                    "version": number.major,
                    "patch": number.patch,
                    "label": str(number),
                    "parent": latest[0].major if latest else None,
                    "parent_label": str(latest[0]) if latest else None,
                    "replaces": None,
                    "use": use,
                    "rows": len(assigned.rows),
                    "inputs": wanted,
                    "code_version": code_version,
                    "settings": dict(settings),
                    "facts": dict(facts),
                    "counts": _counts(facts, assigned, admitted.counts),
                    "left_out": _by_reason(left_out),
                    "curation": curation(_labelled(given, admitted)),
                    "splits": {"members": assigned.members},
                },
            )
            versions.publish(draft, folder / str(number))
        except OSError as error:
            raise ReleaseError(
                f"room and the right to write {folder}",
                got=error.strerror or str(error),
                hint="free space or name another home; earlier versions are untouched",
            ) from error
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        versions.record(place, name)
        path = folder / str(number)
        return Release(name, path.name, path, rows=len(assigned.rows), created=True)


def write(
    draft: Path,
    home: Home,
    *,
    rows: pl.DataFrame,
    votes: pl.DataFrame,
    shard_bytes: int,
    contents: dict[str, Any],
    before: pl.DataFrame | None = None,
    sequences: pl.DataFrame | None = None,
    clip_flow: str | None = None,
) -> None:
    """Everything of a version into an empty folder, the manifest last.

    Args:
        rows: what is released, with ``split``.
        contents: the manifest so far; summary, sizes, changes and checksums are added.
        before: faces of the version before, as ``diff.faces_of`` reads them.
        sequences: clips as ``clips.divided`` gives them.

    Raises:
        OSError: no room, or no right to write.
        ReleaseError: a crop is gone or changed.
    """
    files: dict[str, int] = {}
    sizes: dict[str, dict[str, int]] = {}
    for split in SPLITS:
        part = rows.filter(pl.col("split") == split)
        if part.is_empty():
            # `datasets` cannot load a split without rows; it is absent from the card instead.
            continue
        written = shards.write_faces(draft, part, home=home, split=split, shard_bytes=shard_bytes)
        sizes[split] = {"rows": len(part), "bytes": written.pop("")}
        files |= written
    written = shards.write_votes(draft, votes, shard_bytes=shard_bytes)
    sizes["votes"] = {"rows": len(votes), "bytes": written.pop("")}
    files |= written
    contents["clips"] = None
    if sequences is not None and sequences.height:
        written, contents["clips"] = clips.write(
            draft, sequences, home=home, shard_bytes=shard_bytes, method=clip_flow
        )
        files |= written
    summary = summarise(rows, votes, models=contents["facts"].get("models", []))
    contents.setdefault("curation", curation(rows))
    contents["splits"] |= {"sizes": sizes, "stratification": summary["stratification"]}
    contents["summary"] = summary
    contents["since"] = None
    if before is not None:
        left_out = {face: why for why, faces in contents["left_out"].items() for face in faces}
        contents["since"] = diff.compare(before, diff.slim(rows), left_out=left_out)
    stored = {
        place.rstrip("/"): sum(
            (draft / file).stat().st_size for file in files if file.startswith(place)
        )
        for place in shards.CONFIGS.values()
    }
    (draft / dataset_card.FILE).write_text(dataset_card.render(contents, stored=stored))
    (draft / report.FILE).write_text(
        report.render(contents, rows=rows, votes=votes, home=home, sequences=sequences)
    )
    sums = shards.checksums(draft, [*files, dataset_card.FILE, report.FILE])
    contents["checksums"] = shards.by_config(sums)
    contents["files"] = {
        file: facts | ({"rows": files[file]} if file in files else {})
        for file, facts in sums.items()
    }
    manifest.write(draft, contents)


def _counts(
    facts: Mapping[str, Any], assigned: splits.Assignment, dropped: Mapping[str, int]
) -> list[dict[str, Any]]:
    """One entry per stage, verdict and reason, the release as the last stage."""
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


def _labelled(given: pl.DataFrame, admitted: eligibility.Admission) -> pl.DataFrame:
    """What is released and what flags alone kept out."""
    flagged = [
        face for face, why in admitted.left_out.items() if why in ("label_issue", "open_set")
    ]
    return pl.concat([admitted.rows, given.filter(pl.col("face_id").is_in(flagged))])


def _by_reason(left_out: Mapping[str, str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for face, reason in sorted(left_out.items()):
        found.setdefault(reason, []).append(face)
    return found


def _unchanged(name: str, path: Path, *, rows: int) -> Release:
    damage = verify(path)
    if damage:
        raise ReleaseError(
            f"{name} {path.name} as it was built",
            got="; ".join(damage[:3]),
            hint="put the files back from a copy, or move the folder away and build again",
        )
    return Release(name, path.name, path, rows=rows)
