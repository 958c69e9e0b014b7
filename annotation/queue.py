"""Which faces people should see next, and why."""

from __future__ import annotations

import numpy as np
import polars as pl

from annotation.aggregate.overlap import agreement_of_faces
from annotation.aggregate.votes import tally
from warehouse.errors import SettingsError, TableError
from warehouse.schema import TABLES
from warehouse.vocabulary import EXPRESSIONS

_TERMS = {"uncertainty": "uncertain", "rarity": "coverage", "disagreement": "audit"}
"""What drives a priority, and the reason a face carries when that term is its largest."""


def next_faces(
    faces: pl.DataFrame,
    ratings: pl.DataFrame,
    *,
    votes: pl.DataFrame,
    wanted_votes: int,
    near_duplicates: pl.DataFrame | None = None,
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
    - *rarity*: how much less common the expressions predicted for the face are than the most
      common one, over all kept faces that repeat no other.
    - *disagreement* of the votes so far: 1 - agreement; 0 with fewer than two raters.

    Args:
        faces: ``face_id`` and ``verdict`` (a missing verdict column means all are kept).
        ratings: ``face_id, expression`` of any number of machine raters; may be empty.
        votes: as for ``aggregate.soft_labels``; votes on faces not in ``faces`` are ignored.
        near_duplicates: audit rows; ``flag`` marks a duplicate, ``detail`` is whom it repeats.
        limit: at most so many rows; all by default.
        round: written into every row.

    Raises:
        SettingsError: ``wanted_votes`` below 1 or ``limit`` below 0.
        TableError: a column is missing, or the votes are not votes.
    """
    _check(faces, ratings, wanted_votes=wanted_votes, limit=limit)
    repeats = _repeats(near_duplicates)
    asked = _askable(faces, repeats)
    heard = _heard(votes, repeats)
    scored = asked.join(_machine(asked, ratings), on="face_id", how="left").join(
        heard, on="face_id", how="left"
    )
    terms = scored.with_columns(
        pl.col("n_votes").fill_null(0),
        pl.col("uncertainty").fill_null(1.0),
        pl.col("rarity").fill_null(0.0),
        pl.col("disagreement").fill_null(0.0),
    ).filter(pl.col("n_votes") < wanted_votes)
    names = list(_TERMS)
    queued = terms.select(
        "face_id",
        round=pl.lit(round),
        priority=pl.mean_horizontal(names),
        reason=pl.concat_list(names)
        .list.arg_max()
        .replace_strict(dict(enumerate(_TERMS.values())), return_dtype=pl.String),
        wanted_votes=pl.lit(wanted_votes),
    )
    queued = queued.sort("priority", "face_id", descending=[True, False])
    return queued.head(queued.height if limit is None else limit).cast(TABLES["queue"].schema)


def _check(
    faces: pl.DataFrame, ratings: pl.DataFrame, *, wanted_votes: int, limit: int | None
) -> None:
    if wanted_votes < 1 or (limit is not None and limit < 0):
        raise SettingsError(
            "wanted_votes of at least 1 and a limit of at least 0",
            got=f"wanted_votes={wanted_votes}, limit={limit}",
            mend="raise them",
        )
    for frame, columns in ((faces, {"face_id"}), (ratings, {"face_id", "expression"})):
        if missing := columns - set(frame.columns):
            raise TableError(
                f"the columns {', '.join(sorted(columns))}",
                got=f"none called {', '.join(sorted(missing))}",
                mend="pass rows of the tables faces and ratings",
            )


def _repeats(near_duplicates: pl.DataFrame | None) -> pl.DataFrame:
    if near_duplicates is None or near_duplicates.is_empty():
        return pl.DataFrame(schema={"face_id": pl.String, "shown_as": pl.String})
    flagged = near_duplicates.filter(pl.col("flag") & pl.col("detail").is_not_null())
    return flagged.select("face_id", shown_as="detail").unique("face_id", keep="first")


def _askable(faces: pl.DataFrame, repeats: pl.DataFrame) -> pl.DataFrame:
    kept = faces.filter(pl.col("verdict") == "kept") if "verdict" in faces.columns else faces
    kept = kept.select("face_id").unique()
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


def _machine(asked: pl.DataFrame, ratings: pl.DataFrame) -> pl.DataFrame:
    known = asked.join(_mean_rating(ratings), on="face_id", how="inner").sort("face_id")
    width = len(EXPRESSIONS)
    predicted = known.select(f"p{i}" for i in range(width)).to_numpy()
    logs = np.log2(predicted, out=np.zeros_like(predicted), where=predicted > 0)
    expected = predicted.sum(axis=0)
    scarcity = 1 - expected / max(expected.max(initial=0.0), 1e-12)
    return known.select(
        "face_id",
        uncertainty=pl.Series(np.clip(-(predicted * logs).sum(axis=1) / np.log2(width), 0, 1)),
        rarity=pl.Series(predicted @ scarcity),
    )


def _mean_rating(ratings: pl.DataFrame) -> pl.DataFrame:
    width = len(EXPRESSIONS)
    columns = [
        pl.col("expression").cast(pl.Array(pl.Float64, width)).arr.get(i).alias(f"p{i}")
        for i in range(width)
    ]
    flat = ratings.select("face_id", *columns)
    usable = pl.all_horizontal(pl.col(f"p{i}").is_finite().fill_null(False) for i in range(width))
    flat = flat.filter(usable).sort("face_id", *(f"p{i}" for i in range(width)))
    return flat.group_by("face_id", maintain_order=True).agg(pl.all().mean())
