"""The label queue: faces to annotate next, with reasons and votes."""

from __future__ import annotations

import polars as pl

from annotation.aggregation.agreement import face_agreement
from annotation.aggregation.votes import tally
from annotation.sampling.active_learning import allocate_votes, machine_terms, relabel_priority
from warehouse.errors import SettingsError, TableError
from warehouse.storage.schema import TABLES

_TERMS = {"uncertainty": "uncertain", "rarity": "coverage", "disagreement": "uncertain"}
"""Terms of the priority, and the reason of a face whose largest term it is."""

AUDIT = "audit"
"""Reason of a face that is re-annotated."""


def next_faces(
    faces: pl.DataFrame,
    ratings: pl.DataFrame,
    *,
    votes: pl.DataFrame,
    wanted_votes: int,
    near_duplicates: pl.DataFrame | None = None,
    flagged: pl.DataFrame | None = None,
    reask_votes: int = 0,
    budget: int | None = None,
    limit: int | None = None,
    round: int = 1,  # noqa: A002
) -> pl.DataFrame:
    """Rank the faces that still need votes, in the schema of ``queue``.

    A face is queued if its verdict is ``kept``, it is not a duplicate, and it has fewer than
    ``wanted_votes`` raters. Votes on a duplicate count for its representative, so no annotator
    gets the same picture twice if the representative changes.

    ``priority`` in [0, 1] is the mean of three terms in [0, 1]. ``reason`` names the largest (the
    first on a tie):

    - *uncertainty*: entropy of the machine raters' mean distribution over its maximum; 1 without a
      rating.
    - *rarity*: mean of the rarities of the predicted expressions and action units, the head pose
      (bins of 15 degrees) and the subject, as far as known. A rarity is how much less common a
      value is than the most common one, over all kept faces that are not duplicates.
    - *disagreement* of the votes so far: 1 - agreement; 0 with fewer than two raters.

    A face flagged by an audit is re-annotated, with the reason ``audit``, until it has
    ``wanted_votes + reask_votes`` answers. A person who answers twice counts twice here, so this
    ends. Its priority is 1 - its ActiveLab score.

    Args:
        faces: ``face_id`` and optionally ``verdict`` (without the column all are kept), ``yaw``,
            ``pitch`` (degrees), ``subject_id``.
        ratings: ``face_id, expression`` and optionally ``au`` of any number of machine raters; may
            be empty.
        votes: as for ``aggregation.soft_labels``; votes on faces not in ``faces`` are ignored.
        near_duplicates: rows of that audit; ``flag`` marks a duplicate, ``detail`` is its
            representative.
        flagged: ``face_id, n_answers``: faces flagged by audits, with their answers so far.
        reask_votes: additional votes for flagged faces; 0: none are re-annotated.
        budget: votes to allocate in this round by ``active_learning.allocate_votes``.
            ``wanted_votes`` of a row is then what the face gets in this round.
        limit: maximum number of rows.
        round: written into every row.

    Returns:
        One row per face, highest priority first.

    Raises:
        SettingsError: ``wanted_votes`` is below 1, or a number is negative.
        TableError: a column is missing, or the votes are invalid.
    """
    _check(
        faces, ratings,
        minimum={"wanted_votes": 1, "reask_votes": 0, "budget": 0, "limit": 0},
        given={"wanted_votes": wanted_votes, "reask_votes": reask_votes,
               "budget": budget or 0, "limit": limit or 0},
    )  # fmt: skip
    duplicates = _duplicates(near_duplicates)
    candidates = _candidates(faces, duplicates)
    counts = _vote_counts(votes, duplicates)
    terms = (
        candidates.join(machine_terms(candidates, ratings), on="face_id", how="left")
        .join(counts, on="face_id", how="left")
        .with_columns(
            pl.col("n_votes").fill_null(0),
            pl.col("uncertainty").fill_null(1.0),
            pl.col("rarity", "disagreement").fill_null(0.0),
        )
    )
    queued = _queue_rows(
        terms.filter(pl.col("n_votes") < wanted_votes), wanted_votes=wanted_votes, round=round
    )
    if flagged is not None and reask_votes:
        wanted = wanted_votes + reask_votes
        unfinished = flagged.filter(pl.col("n_answers") < wanted).select("face_id").unique()
        # Re-annotation needs a first annotation.
        voted = terms.filter(pl.col("n_votes") > 0).join(unfinished, on="face_id", how="semi")
        again = _queue_rows(voted, wanted_votes=wanted, round=round, reason=AUDIT)
        if again.height:
            priority = relabel_priority(again["face_id"], ratings, votes)
            again = again.drop("priority").join(priority, on="face_id", how="left")
        queued = pl.concat([again.select(queued.columns), queued])
        queued = queued.unique("face_id", keep="first", maintain_order=True)
    queued = queued.sort("priority", "face_id", descending=[True, False])
    if budget is not None:
        granted = allocate_votes(ratings, votes, queued, vote_counts=counts, budget=budget)
        queued = queued.join(granted, on="face_id").with_columns(wanted_votes="granted")
    queued = queued.head(queued.height if limit is None else limit)
    return queued.select(list(TABLES["queue"].columns)).cast(TABLES["queue"].schema)


def _check(
    faces: pl.DataFrame, ratings: pl.DataFrame, *, minimum: dict[str, int], given: dict[str, int]
) -> None:
    if small := [name for name in given if given[name] < minimum[name]]:
        raise SettingsError(
            "Queue settings are too small",
            got=", ".join(f"{name}={given[name]}" for name in small),
            hint=", ".join(f"set {name} to {minimum[name]} or more" for name in small),
        )
    for frame, columns in ((faces, {"face_id"}), (ratings, {"face_id", "expression"})):
        if missing := columns - set(frame.columns):
            raise TableError(
                "Columns are missing in faces or ratings",
                got=", ".join(sorted(missing)),
                hint="pass rows of the tables faces and ratings",
            )


def _duplicates(near_duplicates: pl.DataFrame | None) -> pl.DataFrame:
    if near_duplicates is None or near_duplicates.is_empty():
        return pl.DataFrame(schema={"face_id": pl.String, "representative": pl.String})
    flagged = near_duplicates.filter(pl.col("flag") & pl.col("detail").is_not_null())
    return flagged.select("face_id", representative="detail").unique("face_id", keep="first")


def _candidates(faces: pl.DataFrame, duplicates: pl.DataFrame) -> pl.DataFrame:
    kept = faces.filter(pl.col("verdict") == "kept") if "verdict" in faces.columns else faces
    known = [name for name in ("yaw", "pitch", "subject_id") if name in faces.columns]
    kept = kept.select("face_id", *known).unique("face_id", keep="first")
    # A duplicate is queued if its representative is missing, or its picture would never be shown.
    repeated = duplicates.join(kept, left_on="representative", right_on="face_id", how="semi")
    return kept.join(repeated, on="face_id", how="anti").sort("face_id")


def _vote_counts(votes: pl.DataFrame, duplicates: pl.DataFrame) -> pl.DataFrame:
    moved = votes.join(duplicates, on="face_id", how="left").with_columns(
        face_id=pl.coalesce("representative", "face_id")
    )
    # A rater who answered both of a pair counts as one rater with both answers.
    moved = moved.drop("weight", "representative", strict=False)
    table = tally(pl.concat([votes.drop("weight", strict=False), moved]))
    return pl.DataFrame(
        {
            "face_id": pl.Series(table.face_ids, dtype=pl.String),
            "n_votes": table.n_raters(),
            "disagreement": 1 - face_agreement(table),
        }
    )


def _queue_rows(
    terms: pl.DataFrame,
    *,
    wanted_votes: int,
    round: int,  # noqa: A002
    reason: str | None = None,
) -> pl.DataFrame:
    names = list(_TERMS)
    largest = pl.concat_list(names).list.arg_max()
    reasons = largest.replace_strict(dict(enumerate(_TERMS.values())), return_dtype=pl.String)
    return terms.select(
        "face_id",
        round=pl.lit(round),
        priority=pl.mean_horizontal(names),
        reason=reasons if reason is None else pl.lit(reason),
        wanted_votes=pl.lit(wanted_votes, pl.Int64),
    )
