"""Where a released face comes from: the second of the video, the votes, the models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from warehouse.errors import ReleaseError
from warehouse.releases import versions
from warehouse.releases.schema import SPLITS
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
_MADE = """
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
    """From a row of a release back to what it was made from.

    Returns:
        ``released`` (the row without its picture, and its split), ``votes`` (as released, by
        pseudonym), ``origin`` (video, second, frame, box; None where the tables know it no
        longer), ``models`` (weights that touched the row, as the release lists them, each with
        its role and licence), ``machine_raters``, ``audits`` (as they stand now), ``made`` (for a
        synthetic face: model, seed, targets), ``release`` (code version, inputs, settings).

    Raises:
        ReleaseError: the version does not hold this face; says why if its manifest does.
    """
    place = Home.at(home)
    path = versions.resolve(place, name, version)
    facts = versions.manifest(path)
    return {
        "released": _released(path, facts, face),
        "votes": _votes(path, face),
        "origin": next(iter(_ask(place, _ORIGIN, face)), None),
        "models": facts["facts"].get("models", []),
        "machine_raters": [row["rater_id"] for row in _ask(place, _RATINGS, face)],
        "audits": _ask(place, _AUDITS, face),
        "made": next(iter(_ask(place, _MADE, face)), None),
        "release": {
            "name": name, "version": path.name, "code_version": facts["code_version"],
            "inputs": facts["inputs"], "settings": facts["settings"],
        },
    }  # fmt: skip


def _released(path: Path, facts: dict[str, Any], face: str) -> dict[str, Any]:
    for split in SPLITS:
        for file in sorted((path / "data").glob(f"{split}-*.parquet")):
            found = pl.scan_parquet(file, glob=False).drop("image").filter(face_id=face).collect()
            if found.height:
                row = found.to_dicts()[0]
                index = row["expression"]
                named = {"expression": None if index is None else EXPRESSIONS[index]}
                return {"split": split} | row | named
    left_out = {one: why for why, faces in facts.get("left_out", {}).items() for one in faces}
    raise ReleaseError(
        f"face {face!r} in {path.parent.name} {path.name}",
        got=f"none; it was left out: {left_out[face]}" if face in left_out else "none",
        hint="name a face_id that the release holds",
    )


def _votes(path: Path, face: str) -> list[dict[str, Any]]:
    files = sorted((path / "votes").glob("votes-*.parquet"))
    if not files:
        return []
    return pl.scan_parquet(files, glob=False).filter(face_id=face).collect().to_dicts()


def _ask(home: Home, sql: str, face: str) -> list[dict[str, Any]]:
    relation = views.connect(home).execute(sql, {"face": face})
    names = [column[0] for column in relation.description or []]
    return [dict(zip(names, row, strict=True)) for row in relation.fetchall()]
