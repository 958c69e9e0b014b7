"""Compare the end state of two homes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import warehouse
from warehouse.storage.home import Home

_FACTS = {
    "videos": "select video_id, verdict, reason from videos order by all",
    "faces": "select face_id, crop, verdict, reason from faces order by all",
    "tracks": "select track_id, n_frames, best_face_id from tracks order by all",
    "ratings": "select face_id, rater_id from ratings order by all",
    "queue": "select face_id from queue order by all",
    "votes": "select face_id, rater_kind, label, weight from votes order by all",
    "annotations": "select face_id, count(*) from annotations group by all order by all",
    "soft_labels": "select face_id, n_votes, entropy from soft_labels order by all",
    "audits": "select face_id, audit, flag from audits order by all",
    "releases": "select name, version, rows from releases order by all",
}


def end_state(root: Path) -> dict[str, Any]:
    """Return the rows that do not depend on time or random account names."""
    connection = warehouse.connect(Home.at(root))
    state = {name: connection.execute(query).fetchall() for name, query in _FACTS.items()}
    state["pictures"] = sorted(
        str(path.relative_to(root)) for path in (root / "media").rglob("*") if path.is_file()
    )
    state["versions"] = sorted(
        str(path.relative_to(root)) for path in (root / "releases").rglob("v*") if path.is_dir()
    )
    state["drafts"] = [str(path) for path in root.rglob(".draft-*")]
    return json.loads(json.dumps(state, default=str))
