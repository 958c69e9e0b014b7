"""How far labelling has come."""

from __future__ import annotations

from typing import Any

from warehouse import lens
from warehouse.home import Home


def progress_of(home: Home) -> dict[str, Any]:
    """Faces queued and voted on, votes per rater, agreement, as short facts for people."""
    from annotation.agreement import krippendorff_alpha

    connection = lens.connect(home)

    def one(query: str) -> Any:
        row = connection.execute(query).fetchone()
        return row[0] if row else None

    per_rater = connection.execute(
        """SELECT rater_id, count(*) FILTER (NOT was_cancelled), count(*) FILTER (was_cancelled)
           FROM standing_annotations GROUP BY ALL ORDER BY ALL"""
    ).fetchall()
    alpha = krippendorff_alpha(lens.ask(home, "SELECT * FROM votes"))
    return {
        "faces kept": one("SELECT count(*) FROM faces WHERE verdict = 'kept'"),
        "faces still queued": one("SELECT count(*) FROM queue"),
        "faces with a vote": one("SELECT count(DISTINCT face_id) FROM current_votes"),
        "votes": one("SELECT count(*) FROM current_votes"),
        "votes still owed": _owed(connection),
        "skips": one("SELECT count(*) FROM standing_annotations WHERE was_cancelled"),
        "krippendorff's alpha": None if alpha is None else round(alpha, 3),
        **{f"votes of {rater}": f"{votes} ({skips} skipped)" for rater, votes, skips in per_rater},
    }


def _owed(connection: Any) -> int:
    row = connection.execute(
        """SELECT coalesce(sum(greatest(wanted_votes - coalesce(n, 0), 0)), 0)::BIGINT
           FROM queue LEFT JOIN (
               SELECT face_id, count(*) AS n FROM current_votes GROUP BY ALL
           ) AS cast_votes ON cast_votes.face_id = queue.face_id"""
    ).fetchone()
    return int(row[0])
