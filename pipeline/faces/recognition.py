"""Who is who: embeddings by an InsightFace pack of the user's, and which tracks are one person."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from pipeline.faces.detect import insightface, runtime
from warehouse.errors import ModelError

WIDTH = 512
"""Numbers of an embedding."""

SAME = 0.4
"""Tracks whose mean embeddings agree by this cosine are one person. A common value for ArcFace
networks, not measured here: no recognition pack may be shipped."""

_SIDE = 112
_ROWS = 1024


class Recogniser:
    """A recognition model of InsightFace's zoo: one ``.onnx`` file or a folder pack."""

    def __init__(self, path: Path, *, threads: int = 1) -> None:
        self.name = path.stem
        if not path.exists():
            raise ModelError(
                "an .onnx file or a folder with an InsightFace pack", got=str(path),
                hint="see `risorius models list` for what is there",
            )  # fmt: skip
        self._model = insightface.model(path, task="recognition", threads=threads)
        runtime.log_provider(f"face recogniser {self.name}", self._model.session)

    def embed(self, crops: np.ndarray) -> np.ndarray:
        """Embeddings float32[n, 512] of length 1.

        Args:
            crops: uint8[n, 224, 224, 3], RGB, aligned: the model's own geometry at twice its size.

        Raises:
            ModelError: the model gives other than 512 numbers a face.
        """
        import cv2

        if not len(crops):
            return np.empty((0, WIDTH), dtype=np.float32)
        small = [
            cv2.resize(crop, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)[:, :, ::-1]
            for crop in crops
        ]
        # One by one: some exported models accept no other batch.
        found = np.concatenate([self._model.get_feat(face).reshape(1, -1) for face in small])
        if found.shape[1] != WIDTH:
            raise ModelError(
                f"{WIDTH} numbers a face", got=f"{found.shape[1]} from {self.name}",
                hint="take a pack with an ArcFace model, such as buffalo_l",
            )  # fmt: skip
        return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-9)


def persons(faces: pl.DataFrame) -> pl.DataFrame:
    """Which track shows which person.

    The most alike tracks are joined first (single linkage above ``SAME``), unless somebody is
    seen in both at once, or two different subjects are declared for them.

    Args:
        faces: ``face_id, track_id, video_id, time_s, subject_id`` (declared or null) and
            ``embedding`` (null where there is none).

    Returns:
        ``track_id, subject_id, method``: ``declared``, ``recognised`` (``person-<first track>``),
        or ``video`` where there is no embedding.
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
    for first, second in _alike(_means(known["rows"])):
        groups.join(first, second)
    names = dict(zip(known["track_id"], groups.names(), strict=True))
    rows = []
    for track in tracks.iter_rows(named=True):
        subject, method = names.get(track["track_id"], (None, ""))
        if track["subject_id"] is not None:
            subject, method = track["subject_id"], "declared"
        elif subject is None:
            subject, method = f"video-{track['video_id']}", "video"
        rows.append({"track_id": track["track_id"], "subject_id": subject, "method": method})
    kinds = {"track_id": pl.String, "subject_id": pl.String, "method": pl.String}
    return pl.DataFrame(rows, schema=kinds)


class _Groups:
    """Tracks joined into persons, as a forest."""

    def __init__(self, tracks: list[dict[str, Any]]) -> None:
        self._tracks = tracks
        self._members = {row: [row] for row in range(len(tracks))}
        self._root = list(range(len(tracks)))

    def join(self, first: int, second: int) -> None:
        one, other = sorted((self._root[first], self._root[second]))
        if one == other or not self._may_be_one(one, other):
            return
        for row in self._members[other]:
            self._root[row] = one
        self._members[one] += self._members.pop(other)

    def names(self) -> list[tuple[str, str]]:
        """Subject and method of every track."""
        said = []
        for root in self._root:
            declared = self._declared(root)
            name = min(declared) if declared else f"person-{self._tracks[root]['track_id']}"
            said.append((name, "recognised"))
        return said

    def _declared(self, root: int) -> set[str]:
        subjects = (self._tracks[row]["subject_id"] for row in self._members[root])
        return {subject for subject in subjects if subject is not None}

    def _may_be_one(self, one: int, other: int) -> bool:
        if len(self._declared(one) | self._declared(other)) > 1:
            return False
        return not any(
            _at_once(self._tracks[a], self._tracks[b])
            for a in self._members[one]
            for b in self._members[other]
        )


def _at_once(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return (
        one["video_id"] == other["video_id"]
        and one["start"] <= other["end"]
        and other["start"] <= one["end"]
    )


def _means(rows: pl.Series) -> np.ndarray:
    means = [np.asarray(one.to_list(), np.float32).mean(axis=0) for one in rows]
    vectors = np.stack(means) if means else np.empty((0, WIDTH), np.float32)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)


def _alike(vectors: np.ndarray) -> Iterable[tuple[int, int]]:
    """Pairs above ``SAME``, the most alike first; ties in the order of their tracks."""
    pairs: list[tuple[float, int, int]] = []
    for low in range(0, len(vectors), _ROWS):
        cosine = vectors[low : low + _ROWS] @ vectors.T
        for row, column in np.argwhere(cosine >= SAME):
            if low + row < column:
                pairs.append((-float(cosine[row, column]), int(low + row), int(column)))
    return ((first, second) for _, first, second in sorted(pairs))
