"""Build a release: written once, never changed, the same bytes from the same inputs."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from warehouse.errors import ReleaseError
from warehouse.home import Home
from warehouse.releases import card, manifest, report, shards, splits, versions
from warehouse.releases.contract import SPLITS, check_facts, check_name, fit_rows, fit_votes
from warehouse.releases.load import verify
from warehouse.releases.summary import summarise
from warehouse.releases.versions import Release

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
    shard_bytes: int = SHARD_BYTES,
) -> Release:
    """Write ``releases/<name>/v<N>``, unless the newest version was made from the same inputs.

    A face enters with at least one vote; a synthetic one with a soft label. The others are
    counted in the manifest. Votes are written as given, also those of faces left out.

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
        shard_bytes: pictures per file.

    Raises:
        ReleaseError: the name, rows, votes or facts do not fit; nothing can be released; a crop
            is gone or changed; the newest version was changed by hand. Earlier versions stay as
            they are, and no half-made one is ever visible.
    """
    place = Home.at(home)
    check_name(name)
    check_facts(facts)
    given, cast = fit_rows(rows), fit_votes(votes)
    wanted = manifest.inputs(
        given, cast, facts=facts, settings=settings, drop_flagged=drop_flagged
    ) | {"shard_bytes": shard_bytes}
    kept, dropped = _select(given, drop_flagged=drop_flagged)
    with versions.locked(place, name) as folder:
        versions.record(place, name)
        latest = versions.numbers(folder)[-1:]
        earlier = versions.manifest(folder / f"v{latest[0]}") if latest else None
        if earlier is not None and earlier["inputs"] == wanted:
            return _unchanged(name, folder / f"v{latest[0]}", rows=earlier["rows"])
        assigned = splits.assign(
            kept, earlier=earlier["splits"]["members"] if earlier is not None else {}
        )
        splits.refuse_leaks(assigned.rows)
        number = versions.next_number(place, name)
        draft = versions.draft(folder)
        try:
            _write(
                draft,
                place,
                rows=assigned.rows,
                votes=cast,
                shard_bytes=shard_bytes,
                contents={
                    "name": name,
                    "version": number,
                    "parent": latest[0] if latest else None,
                    "rows": len(assigned.rows),
                    "inputs": wanted,
                    "code_version": code_version,
                    "settings": dict(settings),
                    "facts": dict(facts),
                    "counts": _counts(facts, assigned, dropped),
                    "splits": {"members": assigned.members},
                },
            )
            versions.publish(draft, folder / f"v{number}")
        except OSError as error:
            raise ReleaseError(
                f"room and the right to write {folder}",
                got=error.strerror or str(error),
                mend="free space or name another home; earlier versions are untouched",
            ) from error
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        versions.record(place, name)
        path = folder / f"v{number}"
        return Release(name, path.name, path, rows=len(assigned.rows), created=True)


def _write(
    draft: Path,
    home: Home,
    *,
    rows: pl.DataFrame,
    votes: pl.DataFrame,
    shard_bytes: int,
    contents: dict[str, Any],
) -> None:
    """Everything of a version, the manifest last."""
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
    summary = summarise(rows, votes)
    contents["splits"] |= {"sizes": sizes, "stratification": summary["stratification"]}
    contents["summary"] = summary
    stored = {
        folder: sum((draft / file).stat().st_size for file in files if file.startswith(folder))
        for folder in ("data", "votes")
    }
    (draft / card.FILE).write_text(card.render(contents, stored=stored))
    (draft / report.FILE).write_text(report.render(contents, rows=rows, votes=votes, home=home))
    sums = shards.checksums(draft, [*files, card.FILE, report.FILE])
    contents["files"] = {
        file: facts | ({"rows": files[file]} if file in files else {})
        for file, facts in sums.items()
    }
    manifest.write(draft, contents)


def _select(rows: pl.DataFrame, *, drop_flagged: bool) -> tuple[pl.DataFrame, dict[str, int]]:
    """The rows that enter, and how many do not by reason.

    Raises:
        ReleaseError: none is left.
    """
    voted = pl.col("n_votes") > 0
    made = (pl.col("source") == "synthetic") & pl.col("soft_label").is_not_null()
    reasons = [("no_votes", ~(voted | made))]
    if drop_flagged:
        reasons += [
            ("label_issue", pl.col("is_label_issue").fill_null(False)),
            ("open_set", pl.col("is_open_set").fill_null(False)),
        ]
    reason = pl.coalesce(pl.when(wrong).then(pl.lit(name)) for name, wrong in reasons)
    marked = rows.with_columns(reason=reason)
    kept = marked.filter(pl.col("reason").is_null()).drop("reason")
    left_out = marked.filter(pl.col("reason").is_not_null())
    dropped = dict(left_out.group_by("reason").len().sort("reason").iter_rows())
    if kept.is_empty():
        raise ReleaseError(
            "at least one face to release",
            got=f"none of {len(rows)}" + "".join(f", {n} {why}" for why, n in dropped.items()),
            mend="collect votes with `risorius label pull`"
            + (", or keep flagged faces" if drop_flagged else ""),
        )
    return kept, dropped


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


def _unchanged(name: str, path: Path, *, rows: int) -> Release:
    damage = verify(path)
    if damage:
        raise ReleaseError(
            f"{name} {path.name} as it was built",
            got="; ".join(damage[:3]),
            mend="put the files back from a copy, or move the folder away and build again",
        )
    return Release(name, path.name, path, rows=rows)
