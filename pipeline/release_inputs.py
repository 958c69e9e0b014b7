"""From the tables of a home to the next version of a release."""

from __future__ import annotations

import importlib.metadata
from typing import TYPE_CHECKING, Any

import polars as pl

from pipeline import models as packs
from pipeline.settings import Settings
from warehouse.licences import origin, terms
from warehouse.storage import tables, views
from warehouse.storage.home import Home

if TYPE_CHECKING:
    from warehouse.releases import Release

_AU_PROVENANCE = (
    "Estimated by the machine rater named above, which learned from landmark blendshapes: AU "
    "proxies, not FACS coding by a person. NaN marks a unit that this rater does not know."
)
_MADE_AU = (
    " Of synthetic faces they are what that rater measured in the picture, not what it was made "
    "to show."
)


def create(settings: Settings) -> Release:
    """Build the next version from ``curated_faces``, ``made_faces`` and every standing vote.

    Raises:
        ReleaseError: nothing is curated yet, a crop is missing, or the declared use is forbidden.
    """
    from warehouse import releases

    home = settings.place
    return releases.build(
        home,
        name=settings.release,
        rows=rows(home),
        votes=_votes(home),
        facts=facts(home, detector=settings.detector),
        settings=_settings_that_matter(settings),
        code_version=importlib.metadata.version("risorius"),
        drop_flagged=settings.drop_flagged,
        use=settings.release_use,
        drop_forbidden=settings.drop_forbidden,
        sequences=clips(home) if settings.release_clips else None,
        clip_flow=settings.clip_flow,
    )


def rows(home: Home) -> pl.DataFrame:
    """Curated faces, then the synthetic ones that were kept, under the terms of their model."""
    seen = views.query(home, "SELECT * FROM curated_faces")
    seen = seen.join(near_groups(home, seen["face_id"]), on="face_id", how="left")
    made = views.query(home, "SELECT * FROM made_faces")
    models = {name: origin(name).licence for name in made["licence"].unique().drop_nulls()}
    licence = pl.col("licence").replace_strict(models, default="unknown", return_dtype=pl.String)
    return pl.concat([seen, made.with_columns(licence)], how="diagonal_relaxed")


def clips(home: Home) -> pl.DataFrame:
    """Clips of every kept video with their frames; the release takes those it may.

    ``near_groups`` names what their frames nearly repeat: also frames nobody voted on, which the
    faces of the release do not tell of.
    """
    found = views.query(home, "SELECT * FROM clip_frames")
    if found["video_id"].n_unique() < 2:
        return found
    frames = found.select("clip_id", face_id="face_ids").explode("face_id")
    tied = frames.join(near_groups(home, frames["face_id"].unique()), on="face_id")
    groups = tied.group_by("clip_id").agg(near_groups=pl.col("near_group").unique().sort())
    return found.join(groups, on="clip_id", how="left")


def near_groups(home: Home, faces: pl.Series) -> pl.DataFrame:
    """``face_id, near_group``: which of ``faces`` hang together by a chain of near pairs.

    The table ``audits`` names the face that each one repeats, and no more: two faces that are
    both near a third, which is perhaps not released, are tied by the audit's graph alone. So the
    graph is drawn again, over every kept face. A group bears the name of its first face.
    """
    from annotation import audit

    seen = views.query(
        home,
        """SELECT face_id, phash, feature FROM faces
           LEFT JOIN (SELECT face_id, feature FROM ratings QUALIFY row_number() OVER
                      (PARTITION BY face_id ORDER BY rater_id DESC) = 1) AS one USING (face_id)
           WHERE verdict = 'kept'
           QUALIFY row_number() OVER (PARTITION BY face_id ORDER BY batch) = 1
           ORDER BY face_id""",
    )
    groups = audit.run("near_duplicates", faces=seen).statistics["groups"] if seen.height else {}
    tied = pl.DataFrame(
        list(groups.items()), schema={"face_id": pl.String, "root": pl.String}, orient="row"
    ).filter(pl.col("face_id").is_in(faces.implode()))
    first = pl.col("face_id").min().over("root")
    return tied.filter(pl.len().over("root") > 1).select("face_id", near_group=first)


def facts(home: Home, *, detector: str = "centerface") -> dict[str, Any]:
    """What the card and the manifest say about how the rows came to be."""
    stages = views.query(
        home,
        """SELECT stage, verdict, split_part(reason, ':', 1) AS reason, sum(n)::BIGINT AS n
           FROM stages GROUP BY ALL ORDER BY stage DESC, verdict DESC, n DESC, reason""",
    )
    labels = views.query(home, "SELECT * FROM labelled ORDER BY verdict DESC, n DESC, reason")
    made = views.query(home, "SELECT * FROM made ORDER BY verdict DESC, n DESC, reason")
    audits = views.query(
        home,
        """SELECT audit, count(*) AS n, count(*) FILTER (flag) AS flagged
           FROM audits GROUP BY ALL ORDER BY ALL""",
    )
    machine = tables.scan(home, "ratings").select(pl.col("rater_id").unique().sort()).collect()
    quality = tables.read(home, "rater_quality").drop("confusion").sort("rater_id")
    said = views.query(home, "SELECT * FROM consents")
    return {
        "stages": [*stages.to_dicts(), *labels.to_dicts(), *made.to_dicts()],
        "audits": audits.to_dicts(),
        "machine_raters": machine["rater_id"].to_list(),
        "models": _models(home, [detector, *machine["rater_id"]]),
        "au_provenance": _AU_PROVENANCE + (_MADE_AU if made.height else ""),
        "rater_quality": quality.to_dicts(),
        **({"consent": _consent(said)} if said.height else {}),
    }


def _models(home: Home, touched: list[str]) -> list[dict[str, str]]:
    """Weights that touched every row. A model of synthetic faces binds those alone, by licence."""
    found = [(name, origin(name), packs.licence_of(home, name)) for name in touched]
    return [
        {
            "name": name.rstrip("/").rsplit("/", 1)[-1],
            "role": known.role if known.licence == licence else "added by the user",
            "licence": licence,
            "note": known.note if known.licence == licence else terms(licence).note,
        }
        for name, known, licence in found
    ]


def _consent(said: pl.DataFrame) -> str:
    """One sentence per statement; the statements are those of ``videos.csv``, word for word."""
    parts = [
        f"{n} {'video' if n == 1 else 'videos'}: {text or 'not stated'}"
        for text, n in said.select("consent", "n").iter_rows()
    ]
    return "As stated beside the videos. " + "; ".join(parts) + "."


def _votes(home: Home) -> pl.DataFrame:
    return views.query(
        home,
        """SELECT face_id, rater_id, rater_kind, answer.validity AS validity,
                  answer.expressions AS expressions, answer.confidence AS confidence,
                  answer.valence AS valence, answer.arousal AS arousal, compounds, free_label, au,
                  answer.note AS note, lead_time_s, was_cancelled, saw_prediction, created_at,
                  updated_at
           FROM own_answers
           WHERE face_id IS NOT NULL AND coalesce(label_set, 'expressions') = 'expressions'
           ORDER BY face_id, rater_id, annotation_id""",
    )


def _settings_that_matter(settings: Settings) -> dict[str, Any]:
    # Paths, ports and tokens differ between two homes with the same data; these do not.
    names = {"sample_fps", "detector", "gate", "rater", "wanted_votes", "aggregation"}
    return settings.model_dump(mode="json", include=names)
