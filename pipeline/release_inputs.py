"""Read the inputs of a release from the tables of a home."""

from __future__ import annotations

import importlib.metadata
import json
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from pipeline import models as packs
from pipeline.ingest import facts as stated_facts
from pipeline.settings import Settings
from warehouse import consent
from warehouse.geometry import crop_transforms
from warehouse.licences import model_terms, strictest, terms
from warehouse.releases.schema import SPLITS
from warehouse.storage import tables, views
from warehouse.storage.home import Home
from warehouse.terms_of_copies import with_strictest_terms

if TYPE_CHECKING:
    from warehouse.releases import Release

_AU_PROVENANCE = (
    "Estimated by the machine rater named above, which learned from landmark blendshapes: AU "
    "proxies, not FACS coding by a person. NaN marks a unit that this rater does not know."
)
_SYNTHETIC_AU = (
    " Of synthetic faces they are what that rater measured in the picture, not what it was made "
    "to show."
)


def create(settings: Settings) -> Release:
    """Build the next version from curated faces, synthetic faces and votes.

    Raises:
        ReleaseError: no face is curated, a crop is missing, or the declared use is forbidden.
    """
    from warehouse import releases

    home = settings.place
    return releases.build(
        home,
        name=settings.release,
        rows=rows(home),
        votes=_votes(home),
        facts=facts(home, detector=settings.detector, require_consent=settings.require_consent),
        settings=_relevant_settings(settings),
        code_version=importlib.metadata.version("risorius"),
        drop_flagged=settings.drop_flagged,
        use=settings.release_use,
        drop_forbidden=settings.drop_forbidden,
        require_consent=settings.require_consent,
        sequences=clips(home) if settings.release_clips else None,
        clip_flow=settings.clip_flow,
        synthetic=settings.release_synthetic,
        segment_items=segment_items(home),
        declared_splits=declared_splits(home),
    )


def declared_splits(home: Home) -> dict[str, str]:
    """Return video to the split that its data set declares."""
    stated = tables.read(home, "sessions").filter(pl.col("field") == "split")
    named = stated.filter(pl.col("value").is_in(SPLITS)).sort("video_id", "batch")
    return dict(named.select("video_id", "value").iter_rows())


def rows(home: Home) -> pl.DataFrame:
    """Return curated faces, then kept synthetic ones with their licence."""
    seen = with_strictest_terms(home, views.query(home, "SELECT * FROM curated_faces"))
    seen = seen.join(near_groups(home, seen["face_id"]), on="face_id", how="left")
    made = views.query(home, "SELECT * FROM curated_synthetic_faces")
    placed = seen.with_columns(transform=_transforms(seen))
    return pl.concat([placed, _with_licence(made, seen)], how="diagonal_relaxed")


def _transforms(faces: pl.DataFrame) -> pl.Series:
    """Return how frame pixels map to the crop; null without keypoints."""
    known = faces["keypoints"].is_not_null().to_numpy()
    found: list[Any] = [None] * faces.height
    if known.any():
        points = np.array(faces["keypoints"].filter(pl.Series(known)).to_list(), dtype=np.float64)
        for row, transform in zip(np.flatnonzero(known), crop_transforms(points), strict=True):
            found[row] = transform.tolist() if np.isfinite(transform).all() else None
    return pl.Series(found, dtype=pl.List(pl.List(pl.Float32)))


def _with_licence(made: pl.DataFrame, seen: pl.DataFrame) -> pl.DataFrame:
    """Replace models by their licences; an edit also has its video's terms."""
    found = []
    of_video = dict(seen.select("video_id", "licence").iter_rows())
    for stated, video in made.select("licence", "video_id").iter_rows():
        own = stated if terms(stated).name != "unknown" else model_terms(stated).licence
        found.append(own if video is None else strictest([own, of_video.get(video)]).name)
    return made.with_columns(licence=pl.Series(found, dtype=pl.String))


def clips(home: Home) -> pl.DataFrame:
    """Return the clips of every kept video with their frames.

    ``near_groups`` names the groups of near duplicates of their frames. It covers frames without
    votes, which are not among the faces of the release.
    """
    found = with_strictest_terms(home, views.query(home, "SELECT * FROM clip_frames"))
    if found["video_id"].n_unique() < 2:
        return found
    frames = found.select("clip_id", face_id="face_ids").explode("face_id")
    tied = frames.join(near_groups(home, frames["face_id"].unique()), on="face_id")
    groups = tied.group_by("clip_id").agg(near_groups=pl.col("near_group").unique().sort())
    return found.join(groups, on="clip_id", how="left")


def segment_items(home: Home) -> dict[str, pl.DataFrame]:
    """Return segments with their labels, votes, texts and spans.

    Texts and spans of an answer are rows of their own, so ``answers`` of a vote lacks them.
    """
    labelled = views.query(home, "SELECT * FROM labelled_segments")
    segments = with_strictest_terms(home, labelled)
    if segments.is_empty():
        return {}
    votes = views.query(
        home,
        """SELECT item_id AS segment_id, video_id, rater_id, rater_kind, label_set, labels, answers
           FROM item_votes JOIN item_videos USING (item_kind, item_id)
           WHERE item_kind = 'segment'""",
    )
    about = {
        name: views.query(home, f"SELECT * FROM {name} JOIN item_videos USING (item_kind, item_id)")
        for name in ("texts", "spans")
    }
    short = [_without_texts(answers) for answers in votes["answers"]]
    votes = votes.with_columns(answers=pl.Series(short, dtype=pl.String))
    return {"segments": segments, "segment_votes": votes, **about}


def _without_texts(answers: str | None) -> str | None:
    """Return answers without texts, open words and spans, as JSON."""
    left = {
        name: value
        for name, value in json.loads(answers or "{}").items()
        if not isinstance(value, str)
        and name != "words"
        and not (isinstance(value, list) and any(isinstance(one, dict) for one in value))
    }
    return json.dumps(left, sort_keys=True, ensure_ascii=False) if left else None


def near_groups(home: Home, faces: pl.Series) -> pl.DataFrame:
    """Return ``face_id, near_group``: connected components of near duplicates.

    The table ``audits`` names only the face that each one repeats. Two faces that are both near a
    third, perhaps unreleased one are connected only in the audit's graph, so the audit runs again
    over all kept faces. A group is named after its first face.
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


def facts(
    home: Home, *, detector: str = "centerface", require_consent: bool = False
) -> dict[str, Any]:
    """Return stages, audits, models and raters for card and manifest."""
    stages = views.query(
        home,
        """SELECT stage, verdict, split_part(reason, ':', 1) AS reason, sum(n)::BIGINT AS n
           FROM stages GROUP BY ALL ORDER BY stage DESC, verdict DESC, n DESC, reason""",
    )
    labels = views.query(home, "SELECT * FROM labelled ORDER BY verdict DESC, n DESC, reason")
    made = views.query(home, "SELECT * FROM synthetic_stages ORDER BY verdict DESC, n DESC, reason")
    audits = views.query(
        home,
        """SELECT audit, count(*) AS n, count(*) FILTER (flag) AS flagged
           FROM audits GROUP BY ALL ORDER BY ALL""",
    )
    machine = tables.scan(home, "ratings").select(pl.col("rater_id").unique().sort()).collect()
    quality = tables.read(home, "rater_quality").drop("confusion").sort("rater_id")
    consents = views.query(home, "SELECT * FROM consents")
    seen = views.query(home, "SELECT subject_id, video_id FROM curated_faces")
    groups = stated_facts.groups(home, seen)
    return {
        "stages": [*stages.to_dicts(), *labels.to_dicts(), *made.to_dicts()],
        "audits": audits.to_dicts(),
        "machine_raters": machine["rater_id"].to_list(),
        "models": _models(home, [detector, *machine["rater_id"]]),
        "au_provenance": _AU_PROVENANCE + (_SYNTHETIC_AU if made.height else ""),
        "rater_quality": quality.to_dicts(),
        **({"groups": groups} if groups else {}),
        **({"consent": _consent(consents, require_consent)} if consents.height else {}),
    }


def _models(home: Home, identifiers: list[str]) -> list[dict[str, str]]:
    """Describe the weights that contributed to every row.

    The synthesis model is not listed: its licence is a column of its synthetic faces.
    """
    found = [(name, model_terms(name), packs.licence_of(home, name)) for name in identifiers]
    return [
        {
            "name": name.rstrip("/").rsplit("/", 1)[-1],
            "role": known.role if known.licence == licence else "added by the user",
            "licence": licence,
            "note": known.note if known.licence == licence else terms(licence).note,
        }
        for name, known, licence in found
    ]


def _consent(consents: pl.DataFrame, required: bool) -> str:
    """Return one sentence per statement, quoted from ``videos.csv``.

    A statement that is not understood is not quoted: it may hold anything about a person.
    """
    today = datetime.now(UTC).date()
    counts: Counter[str] = Counter()
    for text, n in consents.select("consent", "n").iter_rows():
        said = consent.parse(text)
        if said.is_unreadable(today=today):
            counts["not understood, so left out"] += n
        elif said.stated:
            counts[text] += n
        else:
            counts["not stated, so left out" if required else "not stated, and included"] += n
    parts = [f"{n} {'video' if n == 1 else 'videos'}: {text}" for text, n in counts.most_common()]
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


def _relevant_settings(settings: Settings) -> dict[str, Any]:
    # Only settings that change the rows. Paths, ports and tokens differ between equal homes.
    names = {"sample_fps", "detector", "gate", "rater", "wanted_votes", "aggregation"}
    return settings.model_dump(mode="json", include=names)
