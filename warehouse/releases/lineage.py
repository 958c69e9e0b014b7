"""Trace a released face to its video, votes, audits and models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from warehouse.errors import ReleaseError
from warehouse.releases import verification, versions
from warehouse.releases.schema import CONFIGS, FACE_FILES
from warehouse.storage import views
from warehouse.storage.home import Home
from warehouse.vocabulary import EXPRESSIONS

_ORIGIN = """
    SELECT videos.uri, videos.batch, videos.sha256 AS video_sha256, videos.fps, videos.source,
           videos.consent, faces.time_s, faces.frame, faces.bbox, faces.detector_score,
           faces.sharpness, faces.yaw, faces.pitch, faces.roll, faces.crop, faces.context
    FROM faces
    JOIN videos ON videos.video_id = faces.video_id AND videos.batch = faces.batch
    WHERE faces.face_id = $face
    ORDER BY faces.batch LIMIT 1
"""
_RATINGS = "SELECT rater_id FROM ratings WHERE face_id = $face ORDER BY rater_id"
_AUDITS = "SELECT audit, score, flag, detail FROM audits WHERE face_id = $face ORDER BY audit"
_SYNTHESIS = """
    SELECT model, seed, guidance, target_au, target_expression, action, reason
    FROM synthetic_faces WHERE face_id = $face
"""


def lineage(
    home: str | Path | Home | None = None,
    *,
    name: str,
    face: str,
    version: str | int = "latest",
) -> dict[str, Any]:
    """Trace a row of a release to its inputs.

    Returns:
        ``released`` (the row without its image, and its split), ``votes`` (as released, by
        pseudonym), ``origin`` (video, second, frame, box; None if the tables lack it), ``models``
        (weights that contributed to the row, with role and licence), ``machine_raters``,
        ``audits`` (current), ``made`` (for a synthetic face: model, seed, targets), ``release``
        (code version, inputs, settings).

    Raises:
        ReleaseError: the version does not hold this face; the message gives the reason code if
            the manifest has one.
    """
    place = Home.at(home)
    path = versions.resolve(place, name, version)
    contents = verification.check(
        path, *(CONFIGS[one] for one in ("default", "synthetic", "votes"))
    )
    return {
        "released": _released(path, contents, face),
        "votes": _votes(path, face),
        "origin": next(iter(_query(place, _ORIGIN, face)), None),
        "models": contents["facts"].get("models", []),
        "machine_raters": [row["rater_id"] for row in _query(place, _RATINGS, face)],
        "audits": _query(place, _AUDITS, face),
        "made": next(iter(_query(place, _SYNTHESIS, face)), None),
        "release": {
            "name": name, "version": path.name, "code_version": contents["code_version"],
            "inputs": contents["inputs"], "settings": contents["settings"],
        },
    }  # fmt: skip


def _released(path: Path, contents: dict[str, Any], face: str) -> dict[str, Any]:
    for split, pattern in FACE_FILES.items():
        for file in sorted(path.glob(pattern)):
            found = pl.scan_parquet(file, glob=False).drop("image").filter(face_id=face).collect()
            if found.height:
                row = found.to_dicts()[0]
                index = row["expression"]
                named = {"expression": None if index is None else EXPRESSIONS[index]}
                return {"split": split} | row | named
    left_out = {one: why for why, faces in contents.get("left_out", {}).items() for one in faces}
    raise ReleaseError(
        f"{path.parent.name} {path.name} has no face {face!r}",
        got=f"it was left out: {left_out[face]}" if face in left_out else "no such face_id",
        hint="name a face_id of the release",
    )


def _votes(path: Path, face: str) -> list[dict[str, Any]]:
    files = sorted((path / "votes").glob("votes-*.parquet"))
    if not files:
        return []
    return pl.scan_parquet(files, glob=False).filter(face_id=face).collect().to_dicts()


def _query(home: Home, sql: str, face: str) -> list[dict[str, Any]]:
    relation = views.connect(home).execute(sql, {"face": face})
    names = [column[0] for column in relation.description or []]
    return [dict(zip(names, row, strict=True)) for row in relation.fetchall()]
