"""Who may enter a release: votes, flags, consent and licences, each refusal with its reason."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl

from warehouse import consent
from warehouse.errors import ReleaseError
from warehouse.licences import USES, origin, permits, strictest, terms
from warehouse.releases import versions

FORBIDDEN = "licence_forbids"


@dataclass(frozen=True)
class Admission:
    """Who enters.

    Attributes:
        rows: the rows that do.
        counts: reason to number of those that do not.
        left_out: face to reason, for those that may be named. People who did not consent are
            counted and named nowhere.
        silent: faces of people who did not consent: their votes stay out too.
    """

    rows: pl.DataFrame
    counts: dict[str, int]
    left_out: dict[str, str]
    silent: pl.Series


def admit(
    rows: pl.DataFrame,
    *,
    models: Sequence[Mapping[str, Any]],
    drop_flagged: bool,
    use: str | None,
    drop_forbidden: bool,
    today: date,
) -> Admission:
    """Sort rows into those that enter and those that do not, the first reason that holds.

    Args:
        rows: as ``contract.fit_rows`` leaves them.
        models: mappings with ``name`` and ``licence``: weights that touched every row.

    Raises:
        ReleaseError: none is left, or the register forbids the declared ``use``.
    """
    if use is not None and use not in USES:
        raise ReleaseError(
            f"a use among {', '.join(USES)}", got=repr(use), hint="declare one of them with --use"
        )
    reasons = [*_consent(rows, use=use, today=today), *_labels(drop_flagged)]
    if use is not None:
        reasons.append((FORBIDDEN, _forbidden(rows, use)))
    marked = rows.with_columns(
        reason=pl.coalesce(pl.when(wrong).then(pl.lit(name)) for name, wrong in reasons)
    )
    if use is not None:
        _refuse_models(models, use)
        if not drop_forbidden:
            _refuse_rows(marked.filter(pl.col("reason") == FORBIDDEN), use)
    kept = marked.filter(pl.col("reason").is_null()).drop("reason")
    gone = marked.filter(pl.col("reason").is_not_null()).sort("reason", "face_id")
    counts = dict(gone.group_by("reason").len().sort("reason").iter_rows())
    if kept.is_empty():
        raise ReleaseError(
            "at least one face to release",
            got=f"none of {len(rows)}" + "".join(f", {n} {why}" for why, n in counts.items()),
            hint="collect votes with `risorius label pull`"
            + (", or keep flagged faces" if drop_flagged else ""),
        )
    unwilling = pl.col("reason").is_in(consent.REASONS)
    return Admission(
        rows=kept,
        counts=counts,
        left_out=dict(gone.filter(~unwilling).select("face_id", "reason").iter_rows()),
        silent=gone.filter(unwilling)["face_id"],
    )


def _consent(rows: pl.DataFrame, *, use: str | None, today: date) -> list[tuple[str, pl.Expr]]:
    said: dict[str, list[str]] = {}
    for text in rows["consent"].drop_nulls().unique().sort():
        reason = consent.read(text).against(use=use, today=today)
        if reason is not None:
            said.setdefault(reason, []).append(text)
    return [(reason, pl.col("consent").is_in(texts)) for reason, texts in sorted(said.items())]


def _labels(drop_flagged: bool) -> Iterable[tuple[str, pl.Expr]]:
    voted = pl.col("n_votes") > 0
    made = (pl.col("source") == "synthetic") & pl.col("soft_label").is_not_null()
    yield "no_votes", ~(voted | made)
    if drop_flagged:
        yield "label_issue", pl.col("is_label_issue").fill_null(False)
        yield "open_set", pl.col("is_open_set").fill_null(False)


def _forbidden(rows: pl.DataFrame, use: str) -> pl.Expr:
    names = rows["licence"].unique().to_list()
    forbidden = [name for name in names if name is not None and not permits(name, use)]
    unstated = pl.col("licence").is_null() & pl.lit(not permits(None, use))
    return unstated | pl.col("licence").is_in(pl.Series(forbidden, dtype=pl.String).implode())


def _refuse_models(models: Sequence[Mapping[str, Any]], use: str) -> None:
    bad = [model for model in models if not permits(model.get("licence"), use)]
    if bad:
        raise ReleaseError(
            f"models whose terms permit {use} use",
            got="; ".join(
                f"{model['name']} ({model.get('role', 'of unknown role')}), "
                f"{model.get('licence') or 'no licence stated'}, which touched every row"
                for model in bad
            ),
            hint="; ".join(dict.fromkeys(origin(str(model["name"])).hint for model in bad))
            + _other_use(use),
        )


def _refuse_rows(bad: pl.DataFrame, use: str) -> None:
    if bad.is_empty():
        return
    named = bad.with_columns(pl.col("licence").fill_null("none stated"))
    groups = named.group_by("licence", "source").agg(
        pl.len().alias("n"), pl.col("face_id").sort().head(3)
    )
    told = [
        f"{n} {source} faces under {licence} ({', '.join(faces)}{' …' if n > len(faces) else ''})"
        for licence, source, n, faces in groups.sort("licence", "source").iter_rows()
    ]
    raise ReleaseError(
        f"rows whose licences permit {use} use",
        got="; ".join(told) + f"; strictest: {strictest(bad['licence']).name}",
        hint="leave them out with --drop-forbidden, state the licence of their videos in "
        "videos.csv" + _other_use(use),
    )


def _other_use(use: str) -> str:
    return ", or declare --use research" if use == "commercial" else ""


def bound_by(rows: pl.DataFrame, models: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Every licence that touches a release: ``name, terms, from, n``; rows first, then models."""
    counted = rows.select(pl.col("licence").fill_null("none stated")).group_by("licence").len()
    found = [
        {"name": name, "terms": terms(name).name, "from": "rows", "n": n}
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
    """What a version holds against the use it was declared for, one sentence per licence.

    Read from its files and judged by the register as it stands now: terms that were corrected
    since count. Empty where all is permitted, and where no use was declared.

    Raises:
        ReleaseError: there is no version at ``path``, or its manifest is damaged.
    """
    facts = versions.manifest(path)
    use = facts.get("use")
    if use is None:
        return []
    rows = pl.scan_parquet(sorted((path / "data").glob("*.parquet")), glob=False)
    bound = bound_by(rows.select("licence").collect(), facts["facts"].get("models", []))
    return [
        f"{one['name']} of {one['n']} {'faces' if one['from'] == 'rows' else 'by ' + one['from']} "
        f"does not permit {use} use"
        for one in bound
        if not permits(one["name"], use)
    ]
