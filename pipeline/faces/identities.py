"""The table ``identities``: whose face each kept face is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from pipeline.faces import recognition
from warehouse.storage import media, tables, views
from warehouse.storage.home import Home
from warehouse.storage.schema import TABLES

_PART = "current"
_AT_ONCE = 256


def identify(home: Home, recogniser: Path | None = None) -> pl.DataFrame:
    """Write ``identities`` anew and return its rows.

    With a recognition pack persons are the same across cuts and videos; embeddings of an earlier
    run with the same model are used again. Without one a subject is the one declared beside the
    video, else the video itself.

    Raises:
        ModelError: the pack cannot be used.
    """
    subjects = views.query(home, "SELECT * FROM subjects")
    if recogniser is None:
        frame = subjects.with_columns(embedding=pl.lit(None, dtype=_KIND))
        metadata: dict[str, str] = {}
    else:
        frame, metadata = _recognised(home, recogniser)
    frame = frame.select(*TABLES["identities"].columns).sort("face_id")
    tables.write(home, "identities", frame, part=_PART, metadata=metadata)
    return frame


_KIND = TABLES["identities"].schema["embedding"]


def _recognised(home: Home, path: Path) -> tuple[pl.DataFrame, dict[str, str]]:
    faces = views.query(
        home,
        """SELECT face_id, faces.track_id, faces.video_id, time_s, crop, tracks.subject_id
           FROM faces JOIN tracks ON tracks.track_id = faces.track_id
           WHERE faces.verdict = 'kept' ORDER BY face_id""",
    )
    model = recognition.Recogniser(path)
    known = _earlier(home, model.name)
    fresh = faces.join(known, on="face_id", how="anti")
    made = [
        pl.DataFrame(
            {"face_id": part["face_id"], "embedding": _embedded(home, model, part["crop"])},
            schema=known.schema,
        )
        for part in fresh.iter_slices(_AT_ONCE)
    ]
    faces = faces.join(pl.concat([known, *made]), on="face_id", how="left")
    named = recognition.persons(faces)
    frame = faces.drop("subject_id").join(named, on="track_id")
    return frame, {"model": model.name}


def _embedded(home: Home, model: recognition.Recogniser, crops: pl.Series) -> np.ndarray:
    pictures = np.stack([media.load(home, key) for key in crops])
    return model.embed(pictures).astype(np.float16)


def _earlier(home: Home, model: str) -> pl.DataFrame:
    """Embeddings an earlier run wrote with this model."""
    if tables.metadata(home, "identities", part=_PART).get("model") != model:
        return pl.DataFrame(schema={"face_id": pl.String, "embedding": _KIND})
    rows = tables.read(home, "identities").filter(pl.col("embedding").is_not_null())
    return rows.select("face_id", "embedding").unique("face_id", keep="first")
