"""Terms belong to the bytes: what all copies of a video say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import polars as pl

from warehouse.consent import strictest as strictest_consent
from warehouse.licences import strictest
from warehouse.storage import tables
from warehouse.storage.home import Home
from warehouse.storage.schema import TABLES


def with_strictest_terms(home: Home, rows: pl.DataFrame) -> pl.DataFrame:
    """Return rows with the strictest licence and consent of all copies.

    Args:
        rows: with ``video_id`` and ``licence``, and ``consent`` or not. Rows whose video has one
            copy stay as they are.
    """
    found = contradictions(home)
    if found.is_empty():
        return rows
    licences: dict[str, str | None] = {
        video: strictest(names).name for video, names in found.select("video_id", "licences").rows()
    }
    consents: dict[str, str | None] = {
        video: strictest_consent(texts)
        for video, texts in found.select("video_id", "consents").rows()
    }
    changed: dict[str, dict[str, str | None]] = {"licence": licences, "consent": consents}
    return rows.with_columns(
        pl.when(pl.col("video_id").is_in(list(by_video)))
        .then(pl.col("video_id").replace_strict(by_video, default=None, return_dtype=pl.String))
        .otherwise(pl.col(name))
        .alias(name)
        for name, by_video in changed.items()
        if name in rows.columns
    )


def contradictions(home: Home) -> pl.DataFrame:
    """Return the videos whose copies state different terms.

    Columns: ``video_id, files, batches, consents, licences``, lists sorted. A copy that states
    nothing contradicts none.
    """
    rows = _copies(home).filter(pl.col("sha256").is_not_null())
    name = pl.col("uri").str.split("/").list.last()
    consent = pl.col("consent").filter(pl.col("consent").fill_null("") != "")
    licence = pl.col("licence").filter(pl.col("licence").fill_null("unknown") != "unknown")
    grouped = rows.group_by("video_id").agg(
        files=name.unique().sort(),
        batches=pl.col("batch").unique().sort(),
        consents=consent.unique().sort(),
        licences=licence.unique().sort(),
        # A copy adds to a kept row what that one does not state.
        kept_consent=pl.col("consent").filter(pl.col("verdict") == "kept").first(),
        kept_licence=pl.col("licence").filter(pl.col("verdict") == "kept").first(),
        copies=pl.len(),
    )
    adds = (pl.col("consents").list.len() > 0) & (pl.col("kept_consent").fill_null("") == "")
    states = (pl.col("licences").list.len() > 0) & (pl.col("kept_licence") == "unknown")
    differs = (pl.col("consents").list.len() > 1) | (pl.col("licences").list.len() > 1)
    found = grouped.filter((pl.col("copies") > 1) & (differs | adds | states))
    return found.select("video_id", "files", "batches", "consents", "licences").sort("video_id")


def strictest_terms(*declared: Mapping[str, str | None]) -> dict[str, str]:
    """Return the strictest ``licence`` and ``consent`` of declarations.

    What none of them states is left out.
    """
    licences = [one["licence"] for one in declared if one.get("licence")]
    consent = strictest_consent(one.get("consent") for one in declared)
    found = {"licence": strictest(licences).name} if len(set(licences)) > 1 else {}
    if len(set(licences)) == 1:
        found["licence"] = str(licences[0])  # as written
    return {**found, **({"consent": consent} if consent else {})}


def _copies(home: Home) -> pl.DataFrame:
    """Return the rows of videos that have several; others stay unread."""
    paths = tables.paths(home, "videos")
    known = Counter(path.stem.partition(".")[0] for path in paths)
    several = [path for path in paths if known[path.stem.partition(".")[0]] > 1]
    table = TABLES["videos"]
    try:
        return tables.scan_files(several, table).collect() if several else table.empty()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise tables.unreadable(home, "videos", error) from error
