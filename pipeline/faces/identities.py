"""Embed faces, group tracks by person, write ``identities``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from pipeline.faces.detect.base import log_provider
from pipeline.faces.detect.insightface import load_model
from warehouse.errors import ModelError
from warehouse.storage import media, tables, views
from warehouse.storage.home import Home
from warehouse.storage.schema import TABLES

EMBEDDING_SIZE = 512

MIN_COSINE = 0.4
"""Tracks whose mean embeddings reach this cosine are one person. A common value for ArcFace
networks, not measured here: no recognition pack may be shipped."""

_SIDE = 112
_ROWS = 1024
_PART = "current"
_BATCH = 256
_EMBEDDING = TABLES["identities"].schema["embedding"]


def identify(home: Home, recogniser: Path | None = None) -> pl.DataFrame:
    """Write the table ``identities`` and return its rows.

    With a recognition pack, persons are the same across cuts and videos; embeddings of an
    earlier run with the same model are reused. Without one, a subject is the one declared beside
    the video, otherwise the video itself.

    Raises:
        ModelError: the pack cannot be used.
    """
    subjects = views.query(home, "SELECT * FROM face_subjects")
    if recogniser is None:
        frame = subjects.with_columns(embedding=pl.lit(None, dtype=_EMBEDDING))
        metadata: dict[str, str] = {}
    else:
        frame, metadata = _recognised(home, recogniser)
    frame = frame.select(*TABLES["identities"].columns).sort("face_id")
    tables.write(home, "identities", frame, part=_PART, metadata=metadata)
    return frame


def _recognised(home: Home, path: Path) -> tuple[pl.DataFrame, dict[str, str]]:
    faces = views.query(
        home,
        """SELECT face_id, faces.track_id, faces.video_id, time_s, crop, tracks.subject_id
           FROM faces JOIN tracks ON tracks.track_id = faces.track_id
           WHERE faces.verdict = 'kept' ORDER BY face_id""",
    )
    model = Recogniser(path)
    known = _stored_embeddings(home, model.name)
    embedded = [known]
    for part in faces.join(known, on="face_id", how="anti").iter_slices(_BATCH):
        crops = np.stack([media.load(home, key) for key in part["crop"]])
        embedding = model.embed(crops).astype(np.float16)
        embedded.append(
            pl.DataFrame({"face_id": part["face_id"], "embedding": embedding}, schema=known.schema)
        )
    faces = faces.join(pl.concat(embedded), on="face_id", how="left")
    frame = faces.drop("subject_id").join(group_tracks(faces), on="track_id")
    return frame, {"model": model.name}


def _stored_embeddings(home: Home, model: str) -> pl.DataFrame:
    """Return the embeddings that an earlier run wrote with this model."""
    if tables.metadata(home, "identities", part=_PART).get("model") != model:
        return pl.DataFrame(schema={"face_id": pl.String, "embedding": _EMBEDDING})
    rows = tables.read(home, "identities").filter(pl.col("embedding").is_not_null())
    return rows.select("face_id", "embedding").unique("face_id", keep="first")


class Recogniser:
    """A recognition model of InsightFace's zoo: a file or a folder pack."""

    def __init__(self, path: Path, *, threads: int = 1) -> None:
        self.name = path.stem
        if not path.exists():
            raise ModelError(
                "The recogniser is neither an .onnx file nor a folder with an InsightFace pack",
                got=str(path),
                hint="run `risorius models list` to see what is installed",
            )
        self._model = load_model(path, task="recognition", threads=threads)
        log_provider(f"face recogniser {self.name}", self._model.session)

    def embed(self, crops: np.ndarray) -> np.ndarray:
        """Compute embeddings float32[n, 512] of length 1.

        Args:
            crops: uint8[n, 224, 224, 3], RGB, aligned: the model's own geometry at twice its
                size.

        Raises:
            ModelError: the model returns another number of values per face.
        """
        import cv2

        if not len(crops):
            return np.empty((0, EMBEDDING_SIZE), dtype=np.float32)
        small = [
            cv2.resize(crop, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)[:, :, ::-1]
            for crop in crops
        ]
        # One by one: some exported models accept no other batch size.
        found = np.concatenate([self._model.get_feat(face).reshape(1, -1) for face in small])
        if found.shape[1] != EMBEDDING_SIZE:
            raise ModelError(
                f"The embedding does not have {EMBEDDING_SIZE} values",
                got=f"{found.shape[1]} from {self.name}",
                hint="use a pack with an ArcFace model, such as buffalo_l",
            )
        return _normalized(found)


def group_tracks(faces: pl.DataFrame) -> pl.DataFrame:
    """Group tracks by the person they show.

    Single linkage above ``MIN_COSINE``, most similar pairs first. Two groups are not joined if
    they overlap in time in one video or have different declared subjects.

    Args:
        faces: ``face_id, track_id, video_id, time_s, subject_id`` (declared or null) and
            ``embedding`` (nullable).

    Returns:
        ``track_id, subject_id, method``: ``declared``, ``recognised`` (``person-<first track>``),
        or ``video`` if there is no embedding.
    """
    tracks = (
        faces.group_by("track_id", "video_id")
        .agg(
            pl.col("subject_id").first(),
            start=pl.col("time_s").min(),
            end=pl.col("time_s").max(),
            rows=pl.col("embedding").drop_nulls(),
        )
        .sort("track_id")
    )
    known = tracks.filter(pl.col("rows").list.len() > 0)
    groups = _Groups(list(known.drop("rows").iter_rows(named=True)))
    for first, second in _similar_pairs(_means(known["rows"])):
        groups.join(first, second)
    names = dict(zip(known["track_id"], groups.names(), strict=True))
    rows = []
    for track in tracks.iter_rows(named=True):
        subject, method = names.get(track["track_id"]), "recognised"
        if track["subject_id"] is not None:
            subject, method = track["subject_id"], "declared"
        elif subject is None:
            subject, method = f"video-{track['video_id']}", "video"
        rows.append({"track_id": track["track_id"], "subject_id": subject, "method": method})
    schema = {"track_id": pl.String, "subject_id": pl.String, "method": pl.String}
    return pl.DataFrame(rows, schema=schema)


class _Groups:
    """Disjoint sets of tracks, one per person."""

    def __init__(self, tracks: list[dict[str, Any]]) -> None:
        self._tracks = tracks
        self._members = {row: [row] for row in range(len(tracks))}
        self._root = list(range(len(tracks)))

    def join(self, first: int, second: int) -> None:
        one, other = sorted((self._root[first], self._root[second]))
        if one == other or not self._may_join(one, other):
            return
        for row in self._members[other]:
            self._root[row] = one
        self._members[one] += self._members.pop(other)

    def names(self) -> list[str]:
        """Return the subject of every track."""
        return [
            min(self._declared(root), default=f"person-{self._tracks[root]['track_id']}")
            for root in self._root
        ]

    def _declared(self, root: int) -> set[str]:
        subjects = (self._tracks[row]["subject_id"] for row in self._members[root])
        return {subject for subject in subjects if subject is not None}

    def _may_join(self, one: int, other: int) -> bool:
        if len(self._declared(one) | self._declared(other)) > 1:
            return False
        return not any(
            _overlap_in_time(self._tracks[a], self._tracks[b])
            for a in self._members[one]
            for b in self._members[other]
        )


def _overlap_in_time(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return (
        one["video_id"] == other["video_id"]
        and one["start"] <= other["end"]
        and other["start"] <= one["end"]
    )


def _means(rows: pl.Series) -> np.ndarray:
    means = [np.asarray(one.to_list(), np.float32).mean(axis=0) for one in rows]
    return _normalized(np.stack(means) if means else np.empty((0, EMBEDDING_SIZE), np.float32))


def _normalized(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)


def _similar_pairs(vectors: np.ndarray) -> Iterable[tuple[int, int]]:
    """Return pairs above ``MIN_COSINE``, most similar first, then by row."""
    pairs: list[tuple[float, int, int]] = []
    for low in range(0, len(vectors), _ROWS):
        cosine = vectors[low : low + _ROWS] @ vectors.T
        for row, column in np.argwhere(cosine >= MIN_COSINE):
            if low + row < column:
                pairs.append((-float(cosine[row, column]), int(low + row), int(column)))
    return ((first, second) for _, first, second in sorted(pairs))
