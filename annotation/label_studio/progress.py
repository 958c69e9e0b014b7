"""Report labelling progress.

Votes cast and missing, by annotator, and their agreement.
"""

from __future__ import annotations

from typing import Any

import polars as pl

from annotation.label_studio import users
from annotation.label_studio.workspace import Workspace
from warehouse.storage import tables, views
from warehouse.storage.home import Home


def votes_missing(workspace: Workspace) -> pl.DataFrame:
    """Return ``face_id, n_votes, missing`` of every face in question."""
    home, options = workspace.home, workspace.options
    if options.label_set == "expressions":
        return views.query(home, "SELECT face_id, n_votes, missing FROM votes_missing")
    counted = views.query(home, "SELECT * FROM coarse_answers ORDER BY face_id")
    return counted.with_columns(missing=(options.wanted_votes - pl.col("n_votes")).clip(0))


def open_faces(workspace: Workspace) -> pl.DataFrame:
    """Return the open faces of every active annotator.

    Columns: ``rater_id, email, faces, share, votes, skips``.

    ``faces``: number of faces that miss votes and that the annotator has neither answered nor
    skipped. ``share``: the annotator's share of the missing votes, if those of each face are
    divided evenly among the annotators who can still give them.
    """
    annotators = pl.DataFrame(
        [
            (account.email, account.rater_id)
            for account in users.list_accounts(workspace)
            if not account.removed and account.kind in ("person", "simulated")
        ],
        schema={"email": pl.String, "rater_id": pl.String},
        orient="row",
    )
    missing = votes_missing(workspace).filter(pl.col("missing") > 0)
    seen = views.query(workspace.home, "SELECT face_id, rater_id FROM seen_faces")
    pairs = missing.join(annotators, how="cross")
    pairs = pairs.join(seen, on=["face_id", "rater_id"], how="anti").with_columns(
        share=(pl.col("missing") / pl.len().over("face_id")).clip(upper_bound=1.0)
    )
    shares = pairs.group_by("rater_id").agg(faces=pl.len(), share=pl.col("share").sum())
    cast = views.query(
        workspace.home,
        """SELECT rater_id, count(*) FILTER (NOT was_cancelled) AS votes,
                  count(*) FILTER (was_cancelled) AS skips
           FROM standing_annotations GROUP BY ALL""",
    )
    found = annotators.join(shares, on="rater_id", how="left").join(cast, on="rater_id", how="left")
    found = found.with_columns(pl.col("faces", "share", "votes", "skips").fill_null(0))
    return found.sort("email")


def summary(workspace: Workspace) -> dict[str, Any]:
    """Return the facts of ``label status``.

    Faces, votes, agreement, one fact per name.

    ``votes of <rater>`` holds the votes of an annotator and its share of the missing ones;
    ``alpha of <answer>`` an alpha and the number of faces behind it.
    """
    home = workspace.home
    connection = views.connect(home)

    def one(query: str) -> Any:
        row = connection.execute(query).fetchone()
        return row[0] if row else None

    return {
        "faces kept": one("SELECT count(*) FROM faces WHERE verdict = 'kept'"),
        "faces still queued": one("SELECT count(*) FROM queue"),
        "faces to re-annotate": one("SELECT count(*) FROM queue WHERE reason = 'audit'"),
        "faces with enough votes": one(
            "SELECT count(*) FROM answers_given WHERE label_set = 'expressions' "
            f"AND n_raters >= {workspace.options.wanted_votes:d}"
        ),
        "faces with a vote": one("SELECT count(DISTINCT face_id) FROM current_votes"),
        "votes": one("SELECT count(*) FROM current_votes"),
        "votes missing": one("SELECT coalesce(sum(missing), 0)::BIGINT FROM votes_missing"),
        "skips": one("SELECT count(*) FROM standing_annotations WHERE was_cancelled"),
        "self-reports": one("SELECT count(*) FROM self_reports"),
        "malformed answers": one(
            "SELECT count(*) FROM own_answers WHERE starts_with(answer.note, 'malformed: ')"
        ),
        "votes made beside a prediction": one(
            "SELECT count(*) FROM current_votes WHERE saw_prediction"
        ),
        "annotations written by another account": one(
            "SELECT count(DISTINCT (project_id, annotation_id)) FROM edits_by_others"
        ),
        **_agreement(home),
        **_by_annotator(workspace, connection),
    }


def _agreement(home: Home) -> dict[str, Any]:
    from annotation.aggregation import agreement

    votes = views.query(home, "SELECT * FROM votes")
    alpha = agreement.krippendorff_alpha(votes)
    by_expression = agreement.alpha_by_expression(votes).filter(pl.col("n_faces") > 0)
    moods = {
        f"alpha of {name} (interval)": agreement.alpha_of_numbers(
            votes.select("face_id", "rater_id", value=name).unique(), metric="interval"
        )
        for name in ("valence", "arousal")
    }
    au = views.query(home, "SELECT * FROM au_votes")
    units = agreement.alpha_by_unit(au) if au.height else au.clear()
    return {
        "krippendorff's alpha": _rounded(alpha),
        **{
            f"alpha of {name}": {"alpha": _rounded(value), "faces": n}
            for name, value, n in by_expression.select("label", "alpha", "n_faces").iter_rows()
            if value is not None
        },
        **{name: _rounded(value) for name, value in moods.items() if value is not None},
        **{
            f"alpha of AU{unit} (ordinal)": _rounded(value)
            for unit, value in units.iter_rows()
            if value is not None
        },
    }


def _by_annotator(workspace: Workspace, connection: Any) -> dict[str, dict[str, Any]]:
    quality = tables.read(workspace.home, "rater_quality").select("rater_id", "agreement")
    agreed = dict(quality.iter_rows())
    listed = {row["rater_id"]: row for row in open_faces(workspace).iter_rows(named=True)}
    voters = connection.execute(
        """SELECT rater_id, count(*) FILTER (NOT was_cancelled), count(*) FILTER (was_cancelled)
           FROM standing_annotations GROUP BY ALL ORDER BY ALL"""
    ).fetchall()
    cast = {rater: (votes, skips) for rater, votes, skips in voters}
    found = {}
    for rater in sorted(cast.keys() | listed.keys()):
        votes, skips = cast.get(rater, (0, 0))
        mine = listed.get(rater, {"faces": None, "share": None})
        found[f"votes of {rater}"] = {
            "votes": votes,
            "skipped": skips,
            "agreement": _rounded(agreed.get(rater)),
            "open": mine["faces"],
            "missing": _rounded(mine["share"]),
        }
    return found


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
