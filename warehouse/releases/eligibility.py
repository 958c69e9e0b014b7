"""Decide which rows may enter a release: votes, flags, consent, licences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl

from warehouse.consent import REASONS
from warehouse.consent import parse as parse_consent
from warehouse.errors import ReleaseError
from warehouse.licences import PUBLIC, USES, model_terms, permits, strictest, terms
from warehouse.releases import manifest
from warehouse.releases.schema import FACE_FILES

FORBIDDEN = "licence_forbids"


@dataclass(frozen=True)
class Eligibility:
    """Rows that may enter a release, and why the others may not.

    Attributes:
        rows: the eligible rows.
        counts: reason code to number of ineligible rows.
        left_out: face to reason code. Faces without consent are counted, but never listed.
        without_consent: faces without consent; their votes are not released either.
    """

    rows: pl.DataFrame
    counts: dict[str, int]
    left_out: dict[str, str]
    without_consent: pl.Series


def decide(
    rows: pl.DataFrame,
    *,
    models: Sequence[Mapping[str, Any]],
    drop_flagged: bool,
    use: str | None,
    drop_forbidden: bool,
    today: date,
    require_consent: bool = False,
) -> Eligibility:
    """Split rows into eligible and ineligible ones.

    The first reason that applies counts.

    Args:
        rows: as ``schema.fit_rows`` returns them.
        models: mappings with ``name`` and ``licence``: weights that contributed to every row.
        require_consent: leave out rows of videos without a statement of consent.

    Raises:
        ReleaseError: no row is eligible, or a licence forbids the declared ``use``.
    """
    if use is not None and use not in USES:
        raise ReleaseError(
            f"The use is not one of {', '.join(USES)}",
            got=repr(use),
            hint="declare one of them with --use",
        )
    reasons = [
        *_consent_reasons(rows, use=use, today=today, required=require_consent),
        *_label_reasons(drop_flagged),
    ]
    if use is not None:
        reasons.append((FORBIDDEN, _forbidden(rows, use)))
    judged = rows.with_columns(
        reason=pl.coalesce(pl.when(wrong).then(pl.lit(name)) for name, wrong in reasons)
    )
    if use is not None:
        _refuse_models(models, use)
        if not drop_forbidden:
            _refuse_rows(judged.filter(pl.col("reason") == FORBIDDEN), use)
    eligible = judged.filter(pl.col("reason").is_null()).drop("reason")
    dropped = judged.filter(pl.col("reason").is_not_null()).sort("reason", "face_id")
    counts = dict(dropped.group_by("reason").len().sort("reason").iter_rows())
    if eligible.is_empty():
        raise ReleaseError(
            "No face can be released",
            got=f"none of {len(rows)}" + "".join(f", {n} {why}" for why, n in counts.items()),
            hint="state in videos.csv what these people agreed to, and ingest again"
            if counts and counts.keys() <= set(REASONS)
            else "collect votes with `risorius label pull`"
            + (", or keep flagged faces" if drop_flagged else ""),
        )
    no_consent = pl.col("reason").is_in(REASONS)
    return Eligibility(
        rows=eligible,
        counts=counts,
        left_out=dict(dropped.filter(~no_consent).select("face_id", "reason").iter_rows()),
        without_consent=dropped.filter(no_consent)["face_id"],
    )


def decide_segments(
    segments: pl.DataFrame,
    *,
    use: str | None,
    drop_forbidden: bool,
    today: date,
    require_consent: bool = False,
) -> tuple[pl.DataFrame, dict[str, int]]:
    """Return the ``segment_id`` of eligible segments, and counts of others.

    Consent is read as for faces, and a segment needs an answer.

    Args:
        segments: columns of ``items.SEGMENTS``.
        require_consent: leave out segments of videos without a statement of consent.

    Raises:
        ReleaseError: a licence forbids the declared ``use``.
    """
    one = segments.unique("segment_id", maintain_order=True)
    rows = one.select(
        "source", "licence", "consent", "answered", face_id="segment_id",
        subject_id=pl.col("subject_ids").list.first(),
    )  # fmt: skip
    reasons = [
        *_consent_reasons(rows, use=use, today=today, required=require_consent),
        ("no_votes", ~pl.col("answered").fill_null(False)),
    ]
    if use is not None:
        reasons.append((FORBIDDEN, _forbidden(rows, use)))
    judged = rows.with_columns(
        reason=pl.coalesce(pl.when(wrong).then(pl.lit(name)) for name, wrong in reasons)
    )
    if use is not None and not drop_forbidden:
        _refuse_rows(judged.filter(pl.col("reason") == FORBIDDEN), use, what="segments")
    dropped = judged.filter(pl.col("reason").is_not_null())
    return (
        judged.filter(pl.col("reason").is_null()).select(segment_id="face_id"),
        dict(dropped.group_by("reason").len().sort("reason").iter_rows()),
    )


def _consent_reasons(
    rows: pl.DataFrame, *, use: str | None, today: date, required: bool
) -> list[tuple[str, pl.Expr]]:
    found: dict[str, list[str]] = {}
    for text in rows["consent"].fill_null("").unique().sort():
        reason = parse_consent(text).refusal(use=use, today=today, required=required)
        if reason is not None:
            found.setdefault(reason, []).append(text)
    # Synthetic faces show no person whose statement could be asked for.
    needed = {"consent_unstated": pl.col("source") != "synthetic"}
    given = pl.col("consent").fill_null("")
    reasons = [
        (reason, given.is_in(texts) & needed.get(reason, pl.lit(True)))
        for reason, texts in sorted(found.items())
    ]
    allowed = [
        text
        for text in rows["consent"].drop_nulls().unique()
        if parse_consent(text).permits_editing(today=today)
    ]
    edited = (pl.col("source") == "synthetic") & pl.col("subject_id").is_not_null()
    covered = pl.col("consent").is_in(pl.Series(allowed, dtype=pl.String).implode())
    return [*reasons, ("consent_editing", edited & ~covered.fill_null(False))]


def _label_reasons(drop_flagged: bool) -> Iterable[tuple[str, pl.Expr]]:
    voted = pl.col("n_votes") > 0
    pseudo_labelled = (pl.col("source") == "synthetic") & pl.col("soft_label").is_not_null()
    yield "no_votes", ~(voted | pseudo_labelled)
    if drop_flagged:
        yield "label_issue", pl.col("is_label_issue").fill_null(False)
        yield "open_set", pl.col("is_open_set").fill_null(False)


def _forbidden(rows: pl.DataFrame, use: str) -> pl.Expr:
    names = rows["licence"].unique().to_list()
    forbidden = [name for name in names if name is not None and not permits(name, use)]
    unstated = pl.col("licence").is_null() & pl.lit(not permits(None, use))
    return unstated | pl.col("licence").is_in(pl.Series(forbidden, dtype=pl.String).implode())


def _refuse_models(models: Sequence[Mapping[str, Any]], use: str) -> None:
    # Terms of weights bind the use of what they wrote, not who may have it.
    bad = [model for model in models if use != PUBLIC and not permits(model.get("licence"), use)]
    if bad:
        raise ReleaseError(
            f"The licence of a model forbids {use} use",
            got="; ".join(
                f"{model['name']} ({model.get('role', 'of unknown role')}), "
                f"{model.get('licence') or 'no licence stated'}, contributed to every row"
                for model in bad
            ),
            hint="; ".join(dict.fromkeys(model_terms(str(model["name"])).hint for model in bad))
            + _other_use(use),
        )


def _refuse_rows(bad: pl.DataFrame, use: str, *, what: str = "faces") -> None:
    if bad.is_empty():
        return
    named = bad.with_columns(pl.col("licence").fill_null("none stated"))
    groups = named.group_by("licence", "source").agg(
        pl.len().alias("n"), pl.col("face_id").sort().head(3)
    )
    found = [
        f"{n} {source} {what} under {licence} ({', '.join(faces)}{' …' if n > len(faces) else ''})"
        for licence, source, n, faces in groups.sort("licence", "source").iter_rows()
    ]
    raise ReleaseError(
        f"Licences of rows forbid {use} use",
        got="; ".join(found) + f"; strictest: {strictest(bad['licence']).name}",
        hint="leave them out with --drop-forbidden, state the licence of their videos in "
        "videos.csv" + _other_use(use),
    )


def _other_use(use: str) -> str:
    return ", or declare --use research" if use == "commercial" else ""


_FROM = {"rows": "faces", "segments": "segments"}


def licences_of(
    rows: pl.DataFrame, models: Sequence[Mapping[str, Any]], *, what: str = "rows"
) -> list[dict[str, Any]]:
    """List the licences of rows, then models: ``name, terms, from, n``.

    Args:
        what: value of ``from`` for rows: ``rows`` for faces, or ``segments``.
    """
    counted = rows.select(pl.col("licence").fill_null("none stated")).group_by("licence").len()
    found = [
        {"name": name, "terms": terms(name).name, "from": what, "n": n}
        for name, n in counted.sort("licence").iter_rows()
    ]
    return found + [
        {
            "name": str(model.get("licence") or "none stated"),
            "terms": terms(model.get("licence")).name,
            "from": str(model["name"]),
            "n": rows.height,
        }
        for model in models
    ]


def breaches(path: Path) -> list[str]:
    """List the licences that forbid a version's declared use.

    The rows are read from the version's files and judged by today's register, so corrected
    licences count. Empty if all is permitted or no use was declared.

    Raises:
        ReleaseError: there is no version at ``path``, or its manifest is damaged.
    """
    contents = manifest.read(path)
    use = contents.get("use")
    if use is None:
        return []
    faces = [file for pattern in FACE_FILES.values() for file in sorted(path.glob(pattern))]
    found = []
    for files, what in ((faces, "rows"), (sorted(path.glob("segments/*.parquet")), "segments")):
        if files:
            rows = pl.scan_parquet(files, glob=False).select("licence").collect()
            models = contents["facts"].get("models", []) if what == "rows" else []
            found += licences_of(rows, models, what=what)
    return [
        f"{one['name']} of {one['n']} {_FROM.get(one['from'], 'by ' + one['from'])} "
        f"does not permit {use} use"
        for one in found
        if not permits(one["name"], use) and (use != PUBLIC or one["from"] in _FROM)
    ]
