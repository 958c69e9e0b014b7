"""A home with three drawn people, as the pipeline writes it."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl

from tests.warehouse.conftest import drawn_face
from warehouse import releases
from warehouse.storage import atomic, media, tables, views
from warehouse.storage.home import Home
from warehouse.storage.schema import TABLES
from warehouse.vocabulary import EXPRESSIONS

FACES = {"ann-b": ("ann",), "ann-c": ("ann",), "bob-d": ("bob",), "mix-e": ("ann", "bob"),
         "cid-f": ("cid",)}  # fmt: skip
"""Clips and who is seen in them; ``mix-e`` shows two people, each in a track of their own."""

PER_TRACK = 3


def video_id(clip: str) -> str:
    return hashlib.sha256(clip.encode()).hexdigest()[:16]


def face_id(clip: str, who: str, number: int) -> str:
    return f"{video_id(clip)}-{FACES[clip].index(who):04d}-{number}"


def people_home(home: Home) -> Home:
    """Fill ``home``; the first crops of ``cid`` and ``ann`` are equal."""
    (home.inbox / "day").mkdir(parents=True)
    listing, sidecar = [], ["file_name,subject_id,licence,consent,source"]
    labels, identities, votes, audits = [], [], [], []
    for clip, people in FACES.items():
        path = home.inbox / "day" / f"{clip}.mp4"
        path.write_bytes(clip.encode())  # its id is their hash
        listing.append(json.dumps({"uri": str(path), "file_name": path.name}))
        alone = people[0] if len(people) == 1 else None
        sidecar.append(f"{path.name},{alone or ''},CC-BY-4.0,yes,")
        place: dict[str, Any] = {"part": video_id(clip), "batch": "day"}
        _write(home, "videos", [_video(clip, path, alone)], **place)
        tracks = [_track(clip, who) for who in people]
        faces = [_face(home, clip, who, number) for who in people for number in range(PER_TRACK)]
        _write(home, "tracks", tracks, **place)
        _write(home, "faces", faces, **place, metadata={"fingerprint": "abc"})
        for who in people:
            for number in range(PER_TRACK):
                face = face_id(clip, who, number)
                identities.append({"face_id": face, "subject_id": who, "method": "declared"})
                labels.append(_label(face, number))
                votes.append(_vote(face, len(votes)))
                audits.append(
                    {"face_id": face, "audit": "label_noise", "score": 0.9, "flag": False}
                )
    # A face of cid duplicates one of ann: the row stays, its mention of ann is erased.
    twin = {"face_id": face_id("cid-f", "cid", 2), "detail": face_id("ann-b", "ann", 2)}
    audits.append({"audit": "near_duplicates", "score": 0.1, "flag": True} | twin)
    atomic.write_text(home.inbox / "day" / "sources.jsonl", "\n".join(listing) + "\n")
    atomic.write_text(home.inbox / "day" / "videos.csv", "\n".join(sidecar) + "\n")
    for name, rows in (("identities", identities), ("soft_labels", labels),
                       ("annotations", votes), ("audits", audits)):  # fmt: skip
        _write(home, name, rows, part="current")
    return home


def release(
    home: Home,
    *,
    name: str = "faces",
    only: str | None = None,
    rows: pl.DataFrame | None = None,
    segment_items: dict[str, pl.DataFrame] | None = None,
) -> releases.Release:
    """Build the next version, of all subjects or of one, or of ``rows``."""
    if rows is None:
        rows = views.query(home, "SELECT * FROM curated_faces")
    votes = views.query(
        home,
        """SELECT face_id, rater_id, rater_kind, answer.expressions AS expressions,
                  answer.confidence AS confidence, answer.valence AS valence,
                  answer.arousal AS arousal, lead_time_s, was_cancelled, updated_at
           FROM standing_annotations ORDER BY face_id""",
    )
    if only is not None:
        rows = rows.filter(pl.col("subject_id") == only)
        votes = votes.filter(pl.col("face_id").is_in(rows["face_id"].implode()))
    return releases.build(
        home, name=name, rows=rows, votes=votes, facts={}, settings={}, code_version="test",
        segment_items=segment_items,
    )  # fmt: skip


def _write(home: Home, name: str, rows: list[dict[str, Any]], **place: Any) -> None:
    table = TABLES[name]
    whole = [{column: row.get(column) for column in table.columns} for row in rows]
    tables.write(home, name, pl.DataFrame(whole, schema=table.schema), **place)


def _video(clip: str, path: Any, subject: str | None) -> dict[str, Any]:
    return {
        "video_id": video_id(clip), "uri": str(path), "batch": "day", "subject_id": subject,
        "licence": "CC-BY-4.0", "consent": "yes", "source": "local", "verdict": "kept",
    }  # fmt: skip


def _track(clip: str, who: str) -> dict[str, Any]:
    track = face_id(clip, who, 0).rpartition("-")[0]
    return {
        "track_id": track, "video_id": video_id(clip), "batch": "day", "subject_id": who,
        "best_face_id": f"{track}-0",
    }  # fmt: skip


def _face(home: Home, clip: str, who: str, number: int) -> dict[str, Any]:
    face = face_id(clip, who, number)
    seed = int(hashlib.sha256(face.encode()).hexdigest()[:6], 16)
    frame = np.random.default_rng(seed).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    if (clip, number) == ("cid-f", 0):
        seed = int(hashlib.sha256(face_id("ann-b", "ann", 0).encode()).hexdigest()[:6], 16)
    return {
        "face_id": face, "track_id": face.rpartition("-")[0], "video_id": video_id(clip),
        "batch": "day", "frame": number, "time_s": float(number), "verdict": "kept",
        "crop": media.store(home, "crops", drawn_face(seed)),
        "context": media.store(home, "contexts", frame),
    }  # fmt: skip


def _label(face: str, number: int) -> dict[str, Any]:
    soft = [0.0] * len(EXPRESSIONS)
    soft[number] = 1.0
    return {"face_id": face, "expression": soft, "open_set_share": 0.0, "n_votes": 1,
            "entropy": 0.0, "agreement": 1.0, "method": "vote_share"}  # fmt: skip


def _vote(face: str, number: int) -> dict[str, Any]:
    when = datetime(2026, 1, 1, 12, number % 60, tzinfo=UTC)
    return {
        "annotation_id": number, "task_id": number, "project_id": 1, "face_id": face,
        "rater_id": "person-00000000", "rater_kind": "person", "event": "created",
        "answer": {"expressions": ["happiness"]}, "was_cancelled": False, "updated_at": when,
        "pulled_at": when,
    }  # fmt: skip
