"""From the tables of a home to the next version of a release."""

from __future__ import annotations

import importlib.metadata
from typing import TYPE_CHECKING, Any

import polars as pl

from pipeline.settings import Settings
from warehouse import lens, tables
from warehouse.home import Home

if TYPE_CHECKING:
    from warehouse.releases import Release

_AU_PROVENANCE = (
    "Estimated by the machine rater named above, which learned from landmark blendshapes: AU "
    "proxies, not FACS coding by a person. NaN marks a unit that this rater does not know."
)


def create(settings: Settings) -> Release:
    """Build the next version from ``curated_faces`` and every standing vote.

    Raises:
        ReleaseError: nothing is curated yet, or a crop is missing.
    """
    from warehouse import releases

    home = settings.place
    return releases.build(
        home,
        name=settings.release,
        rows=lens.ask(home, "SELECT * FROM curated_faces"),
        votes=_votes(home),
        facts=facts(home),
        settings=_settings_that_matter(settings),
        code_version=importlib.metadata.version("risorius"),
        drop_flagged=settings.drop_flagged,
    )


def facts(home: Home) -> dict[str, Any]:
    """What the card and the manifest say about how the rows came to be."""
    stages = lens.ask(
        home,
        """SELECT stage, verdict, split_part(reason, ':', 1) AS reason, sum(n)::BIGINT AS n
           FROM stages GROUP BY ALL ORDER BY stage DESC, verdict DESC, n DESC, reason""",
    )
    labels = lens.ask(home, "SELECT * FROM labelled ORDER BY verdict DESC, n DESC, reason")
    audits = lens.ask(
        home,
        """SELECT audit, count(*) AS n, count(*) FILTER (flag) AS flagged
           FROM audits GROUP BY ALL ORDER BY ALL""",
    )
    machine = tables.scan(home, "ratings").select(pl.col("rater_id").unique().sort()).collect()
    quality = tables.read(home, "rater_quality").drop("confusion").sort("rater_id")
    return {
        "stages": [*stages.to_dicts(), *labels.to_dicts()],
        "audits": audits.to_dicts(),
        "machine_raters": machine["rater_id"].to_list(),
        "au_provenance": _AU_PROVENANCE,
        "rater_quality": quality.to_dicts(),
    }


def _votes(home: Home) -> pl.DataFrame:
    return lens.ask(
        home,
        """SELECT face_id, rater_id, rater_kind, answer.validity AS validity,
                  answer.expressions AS expressions, answer.confidence AS confidence,
                  answer.valence AS valence, answer.arousal AS arousal, answer.note AS note,
                  lead_time_s, was_cancelled, saw_prediction, created_at, updated_at
           FROM standing_annotations WHERE face_id IS NOT NULL
           ORDER BY face_id, rater_id, annotation_id""",
    )


def _settings_that_matter(settings: Settings) -> dict[str, Any]:
    # Paths, ports and tokens differ between two homes with the same data; these do not.
    names = {"sample_fps", "detector", "gate", "rater", "wanted_votes", "aggregation"}
    return settings.model_dump(mode="json", include=names)
