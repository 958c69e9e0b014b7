"""Which faces people should see next, why, and how many votes each is worth."""

from __future__ import annotations

import polars as pl

from annotation.aggregation.overlap import agreement_of_faces
from annotation.aggregation.votes import tally
from annotation.sampling.active_learning import machine_terms, relabel_priority, spend
from warehouse.errors import SettingsError, TableError
from warehouse.storage.schema import TABLES

_TERMS = {"uncertainty": "uncertain", "rarity": "coverage", "disagreement": "uncertain"}
"""What drives a priority, and the reason a face carries when that term is its largest."""

ASKED_AGAIN = "audit"


def next_faces(
    faces: pl.DataFrame,
    ratings: pl.DataFrame,
    *,
    votes: pl.DataFrame,
    wanted_votes: int,
    near_duplicates: pl.DataFrame | None = None,
    doubted: pl.DataFrame | None = None,
    reask_votes: int = 0,
    budget: int | None = None,
    limit: int | None = None,
    round: int = 1,  # noqa: A002
) -> pl.DataFrame:
    """The faces that still want votes, most useful first, in the schema of ``queue``.

    A face is asked when its verdict is ``kept``, it repeats no other face, and fewer than
    ``wanted_votes`` raters answered it. Votes on a duplicate count for the face it repeats, so
    that nobody is asked twice when the representative changes.

    ``priority`` in [0, 1] is the mean of three terms, each in [0, 1]; ``reason`` names the
    largest (the first of them on a tie):

    - *uncertainty*: entropy of the machine raters' mean distribution, over its maximum; 1 for a
      face that no machine rated.
    - *rarity*: how much less common the face is than the most common kind, over all kept faces
      that repeat no other: the mean of the rarities of the expressions and the action units
      predicted for it, its head pose (in bins of 15 degrees) and its subject, as far as known.
    - *disagreement* of the votes so far: 1 - agreement; 0 with fewer than two raters.

    A face that an audit doubts is asked again, with the reason ``audit``, until it has
    ``reask_votes`` answers more than ``wanted_votes``; people asked twice count twice, so it
    ends. Its priority is 1 - its ActiveLab score: how much one more label would tell.

    Args:
        faces: ``face_id`` and optionally ``verdict`` (a missing column means all are kept),
            ``yaw``, ``pitch`` (degrees), ``subject_id``.
        ratings: ``face_id, expression`` and optionally ``au`` of any number of machine raters;
            may be empty.
        votes: as for ``aggregate.soft_labels``; votes on faces not in ``faces`` are ignored.
        near_duplicates: audit rows; ``flag`` marks a duplicate, ``detail`` is whom it repeats.
        doubted: ``face_id, n_answers``: faces that audits doubt, with the answers they have.
        reask_votes: 0 asks nobody again.
        budget: votes this round may ask for: spent one by one where ``vote_value.spend`` says
            they buy most; ``wanted_votes`` of a row is then what the face gets this round.
        limit: at most so many rows; all by default.
        round: written into every row.

    Raises:
        SettingsError: ``wanted_votes`` below 1, or a negative number.
        TableError: a column is missing, or the votes are not votes.
    """
    _check(
        faces, ratings,
        numbers={"wanted_votes": wanted_votes - 1, "reask_votes": reask_votes,
                 "budget": budget or 0, "limit": limit or 0},
    )  # fmt: skip
    repeats = _repeats(near_duplicates)
    asked = _askable(faces, repeats)
    heard = _heard(votes, repeats)
    scored = asked.join(machine_terms(asked, ratings), on="face_id", how="left").join(
        heard, on="face_id", how="left"
    )
    terms = scored.with_columns(
        pl.col("n_votes").fill_null(0),
        pl.col("uncertainty").fill_null(1.0),
        pl.col("rarity", "disagreement").fill_null(0.0),
    )
    again = _again(terms, doubted, up_to=wanted_votes + reask_votes if reask_votes else 0)
    first = terms.filter(pl.col("n_votes") < wanted_votes)
    queued = _named(first, pl.lit(wanted_votes), round)
    asked_again = _named(again, pl.col("wanted"), round, reason=ASKED_AGAIN)
    if again.height:
        asked_again = asked_again.drop("priority").join(
            relabel_priority(again["face_id"], ratings, votes), on="face_id", how="left"
        )
    queued = pl.concat([asked_again.select(queued.columns), queued])
    queued = queued.unique("face_id", keep="first", maintain_order=True)
    queued = queued.sort("priority", "face_id", descending=[True, False])
    if budget is not None:
        given = spend(ratings, votes, queued, heard=heard, budget=budget)
        queued = queued.join(given, on="face_id").with_columns(wanted_votes="granted")
    queued = queued.head(queued.height if limit is None else limit)
    return queued.select(list(TABLES["queue"].columns)).cast(TABLES["queue"].schema)


def _check(faces: pl.DataFrame, ratings: pl.DataFrame, *, numbers: dict[str, int]) -> None:
    if negative := [name for name, number in numbers.items() if number < 0]:
        raise SettingsError(
            "wanted_votes of at least 1, and reask_votes, budget and limit of at least 0",
            got=", ".join(
                f"{name}={numbers[name] + (name == 'wanted_votes')}" for name in negative
            ),
            hint="raise them",
        )
    for frame, columns in ((faces, {"face_id"}), (ratings, {"face_id", "expression"})):
        if missing := columns - set(frame.columns):
            raise TableError(
                f"the columns {', '.join(sorted(columns))}",
                got=f"none called {', '.join(sorted(missing))}",
                hint="pass rows of the tables faces and ratings",
            )


def _repeats(near_duplicates: pl.DataFrame | None) -> pl.DataFrame:
    if near_duplicates is None or near_duplicates.is_empty():
        return pl.DataFrame(schema={"face_id": pl.String, "shown_as": pl.String})
    flagged = near_duplicates.filter(pl.col("flag") & pl.col("detail").is_not_null())
    return flagged.select("face_id", shown_as="detail").unique("face_id", keep="first")


def _askable(faces: pl.DataFrame, repeats: pl.DataFrame) -> pl.DataFrame:
    kept = faces.filter(pl.col("verdict") == "kept") if "verdict" in faces.columns else faces
    known = [name for name in ("yaw", "pitch", "subject_id") if name in faces.columns]
    kept = kept.select("face_id", *known).unique("face_id", keep="first")
    # A duplicate stands in when the face it repeats is gone, or its picture would never be seen.
    present = repeats.join(kept, left_on="shown_as", right_on="face_id", how="semi")
    return kept.join(present, on="face_id", how="anti").sort("face_id")


def _heard(votes: pl.DataFrame, repeats: pl.DataFrame) -> pl.DataFrame:
    own = votes.join(repeats, on="face_id", how="left").with_columns(
        face_id=pl.coalesce("shown_as", "face_id")
    )
    # A rater who answered both of a pair is one rater, who then gave both answers.
    own = own.drop("weight", strict=False)
    table = tally(pl.concat([votes.drop("weight", strict=False), own.drop("shown_as")]))
    return pl.DataFrame(
        {
            "face_id": pl.Series(table.face_ids, dtype=pl.String),
            "n_votes": table.n_raters(),
            "disagreement": 1 - agreement_of_faces(table),
        }
    )


def _again(terms: pl.DataFrame, doubted: pl.DataFrame | None, *, up_to: int) -> pl.DataFrame:
    if doubted is None or not up_to:
        return terms.clear().with_columns(wanted=pl.lit(0, pl.Int64))
    open_still = doubted.filter(pl.col("n_answers") < up_to).select("face_id").unique()
    # Only a face that has been asked can be asked again.
    known = terms.filter(pl.col("n_votes") > 0).join(open_still, on="face_id", how="semi")
    return known.with_columns(wanted=pl.lit(up_to, pl.Int64))


def _named(
    terms: pl.DataFrame,
    wanted: pl.Expr,
    round: int,  # noqa: A002
    *,
    reason: str | None = None,
) -> pl.DataFrame:
    names = list(_TERMS)
    largest = pl.concat_list(names).list.arg_max()
    why = largest.replace_strict(dict(enumerate(_TERMS.values())), return_dtype=pl.String)
    return terms.select(
        "face_id",
        round=pl.lit(round),
        priority=pl.mean_horizontal(names),
        reason=why if reason is None else pl.lit(reason),
        wanted_votes=wanted.cast(pl.Int64),
    )
