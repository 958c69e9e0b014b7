"""Decide whether a version may be passed on to anyone."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl

from warehouse import consent
from warehouse.licences import PUBLIC, permits
from warehouse.storage import tables
from warehouse.storage.home import Home

HINT = (
    "publish to a private repository; or release what may be passed on with `risorius release "
    "create --use public --drop-forbidden`; or state licence and consent of these videos in "
    "videos.csv, ingest them and release again"
)

_CONSENT = {
    "consent_withdrawn": "whose consent was refused or withdrawn",
    "consent_unreadable": "whose consent is not understood",
    "consent_expired": "whose consent has expired",
    "consent_scope": "whose consent is limited to a use",
    "consent_ends": "whose consent ends on a day, when a public copy cannot be recalled",
}
_NAMED = 3
_KINDS = (
    ("data", "face_id", "faces"), ("synthetic", "face_id", "faces"),
    ("clips", "clip_id", "clips"), ("segments", "segment_id", "segments"),
)  # fmt: skip


@dataclass(frozen=True)
class Terms:
    """Whether the rows of a version may be passed on to anyone.

    Attributes:
        barriers: one phrase per licence or consent that does not allow it, with its rows.
        unstated: rows of videos without a statement of consent, which the setting lets in.
    """

    barriers: list[str]
    unstated: int


def terms_of(home: Home, path: Path, *, today: date | None = None) -> Terms:
    """Compare the rows of a version with their licences and today's consents.

    Consent is no column of a release. It is read from the table ``videos``, where one that was
    withdrawn since the version was built is found too. Of several statements about a video the
    strictest counts.
    """
    rows = pl.concat(
        pl.scan_parquet(sorted(files), glob=False).select(
            pl.col(key).alias("id"), "video_id", "source", "licence", kind=pl.lit(kind)
        )
        for folder, key, kind in _KINDS
        if (files := list((path / folder).glob("*.parquet")))
    ).collect()
    videos = tables.read(home, "videos").select("video_id", "consent")
    reasons, stated = _consents(videos, today or datetime.now(UTC).date())
    found = []
    groups = rows.group_by("licence", "source", "kind").agg(pl.col("id").sort())
    for licence, source, kind, ids in groups.sort("licence", "source", "kind").iter_rows():
        if not permits(licence, PUBLIC):
            found.append(f"{_named(source, kind, ids)} under {licence or 'no stated licence'}")
    refused = rows.with_columns(
        reason=pl.col("video_id").replace_strict(reasons, default=None, return_dtype=pl.String)
    ).filter(pl.col("reason").is_not_null())
    for reason, source, kind, ids in (
        refused.group_by("reason", "source", "kind").agg(pl.col("id").sort())
        .sort("reason", "source", "kind").iter_rows()
    ):  # fmt: skip
        found.append(f"{_named(source, kind, ids)} {_CONSENT.get(reason, reason)}")
    real = rows.filter(pl.col("kind") == "faces", pl.col("source") != "synthetic")
    return Terms(found, real.filter(~pl.col("video_id").is_in(stated)).height)


def _consents(videos: pl.DataFrame, today: date) -> tuple[dict[str, str], list[str]]:
    """Return video to the reason against it, and the videos with a statement."""
    reasons: dict[str, str] = {}
    stated = []
    for video, text in videos.drop_nulls().unique().sort("video_id", "consent").iter_rows():
        said = consent.parse(text)
        if not said.stated:
            continue
        stated.append(video)
        reason = said.refusal(use=PUBLIC, today=today)
        if reason is not None:
            reasons.setdefault(video, reason)
    return reasons, stated


def _named(source: str, kind: str, ids: list[str]) -> str:
    more = " …" if len(ids) > _NAMED else ""
    return f"{len(ids)} {source} {kind} ({', '.join(ids[:_NAMED])}{more})"
