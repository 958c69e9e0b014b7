"""Find everything a home stores about a data subject or a video."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl

from warehouse.errors import MediaError, SettingsError
from warehouse.releases import manifest, versions
from warehouse.releases.schema import SPLITS
from warehouse.storage import downloads, media, mirror, tables
from warehouse.storage.home import Home

KINDS = ("subject", "video")
SIGNATURE_SIDE = 16


@dataclass(frozen=True)
class DataSubject:
    """A subject or a video and everything stored about it; every field sorted.

    Attributes:
        kind: ``subject`` or ``video``.
        name: the subject's or video's id.
        faces: ids of its faces, and of synthetic faces that edit one of them.
        tracks: ids of its tracks.
        videos: ids of videos in which no other subject is known.
        shared: ids of videos that show other subjects too; their frames show this one as well.
        crops: media keys of its crops.
        contexts: media keys of frames that show it.
        sources: paths and URLs of its videos, shared ones included, and their origins.
        signatures: perceptual hashes of its crops, see ``difference_hash``.
    """

    kind: str
    name: str
    faces: tuple[str, ...]
    tracks: tuple[str, ...]
    videos: tuple[str, ...]
    shared: tuple[str, ...]
    crops: tuple[str, ...]
    contexts: tuple[str, ...]
    sources: tuple[str, ...]
    signatures: tuple[str, ...]

    @property
    def ids(self) -> tuple[str, ...]:
        """Return the ids that are long enough to search for in any file."""
        return (*self.videos, *self.tracks, *self.faces)

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> DataSubject:
        fields: dict[str, Any] = json.loads(text)
        lists = {key: tuple(value) for key, value in fields.items() if isinstance(value, list)}
        return cls(**(fields | lists))


def find(home: Home, kind: str, name: str) -> DataSubject:
    """Collect a subject's or a video's data from tables and releases.

    Raises:
        SettingsError: the id is unknown.
    """
    known = _known(home)
    column = f"{kind}_id"
    if kind not in KINDS:
        raise SettingsError(
            "Unknown kind of data subject", got=repr(kind), hint="use subject or video"
        )
    declared = known.filter(pl.col(column) == name)
    if declared.is_empty() and not _in_manifest(home, kind, name):
        raise SettingsError(
            f"There is no {kind} {name!r} in {home.root}",
            got=f"{known[column].n_unique()} others in its tables and releases",
            hint=f'list the ids: risorius sql "SELECT DISTINCT {column} FROM '
            f'{"identities" if kind == "subject" else "videos"}"',
        )
    others = known.filter(pl.col(column) != name)["video_id"]
    seen_in = set(declared["video_id"].drop_nulls())
    shared = seen_in & set(others.drop_nulls()) if kind == "subject" else set()
    whole = seen_in - shared
    faces = tables.read(home, "faces").filter(
        pl.col("video_id").is_in(sorted(whole))
        | pl.col("track_id").is_in(declared["track_id"].drop_nulls().unique().implode())
        | pl.col("face_id").is_in(declared["face_id"].drop_nulls().unique().implode())
    )
    frames = tables.read(home, "faces").filter(pl.col("video_id").is_in(sorted(shared)))
    videos = tables.read(home, "videos").filter(pl.col("video_id").is_in(sorted(seen_in)))
    own = pl.concat([declared.select("face_id", "track_id"), faces.select("face_id", "track_id")])
    edits = tables.read(home, "synthetic_faces").filter(
        pl.col("reference").is_in(own["face_id"].drop_nulls().unique().implode())
    )
    crops = _sorted([*faces["crop"], *edits["crop"]])
    return DataSubject(
        kind=kind,
        name=name,
        faces=_sorted([*own["face_id"], *edits["face_id"]]),
        tracks=_sorted(own["track_id"]),
        videos=tuple(sorted(whole)),
        shared=tuple(sorted(shared)),
        crops=crops,
        contexts=_sorted([*faces["context"], *frames["context"]]),
        sources=_sorted([*videos["uri"], *_origins(home, videos["uri"])]),
        signatures=_sorted(_hash_of(home, key) for key in crops),
    )


def local_path(home: Home, uri: str) -> Path:
    """Return the local path of a ``uri`` written on any machine."""
    path = Path(uri)
    if home.inbox in path.parents or mirror.find(home.inbox / "any") is None:
        return path
    for at, part in enumerate(path.parts):
        if part == home.inbox.name:
            found = home.inbox.joinpath(*path.parts[at + 1 :])
            if found.is_file():
                return found
    return path


def difference_hash(data: bytes) -> str | None:
    """Return the dHash of an encoded image as 64 hex digits, or None.

    The image is scaled to 16 x 17 gray pixels. Each bit says whether a pixel is darker than its
    right neighbour, so scaling and compression change few bits.
    """
    import cv2
    import numpy as np

    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE) if data else None
    if image is None:
        return None
    small = cv2.resize(image, (SIGNATURE_SIDE + 1, SIGNATURE_SIDE), interpolation=cv2.INTER_AREA)
    return np.packbits(small[:, 1:] > small[:, :-1]).tobytes().hex()


def _known(home: Home) -> pl.DataFrame:
    """Return all known combinations of the four ids, with repeats."""
    names = ("face_id", "track_id", "video_id", "subject_id")
    faces = tables.scan(home, "faces").select("face_id", "track_id", "video_id")
    identities = tables.scan(home, "identities").select("face_id", "subject_id")
    tracks = tables.scan(home, "tracks").select("track_id", "video_id", "subject_id")
    videos = tables.scan(home, "videos").select("video_id", "subject_id")
    found = [
        faces.join(identities, on="face_id", how="left").select(names),
        tracks.with_columns(face_id=pl.lit(None, dtype=pl.String)).select(names),
        videos.with_columns(
            face_id=pl.lit(None, dtype=pl.String), track_id=pl.lit(None, dtype=pl.String)
        ).select(names),
    ]
    for folder in _versions(home):
        for split in SPLITS:
            files = sorted((folder / "data").glob(f"{split}-*.parquet"))
            if files:
                found.append(pl.scan_parquet(files, glob=False).select(names))
    return pl.concat(found).collect().filter(~pl.all_horizontal(pl.col(names).is_null()))


def _origins(home: Home, uris: Iterable[str]) -> set[str]:
    return downloads.origins(str(local_path(home, uri)) for uri in uris)


def _in_manifest(home: Home, kind: str, name: str) -> bool:
    """Return whether a manifest lists the id, even without rows."""
    return any(
        name in manifest.read(folder)["splits"].get("members", {}).get(kind, {})
        for folder in _versions(home)
    )


def _versions(home: Home) -> Iterable[Path]:
    for entry in sorted(home.releases.iterdir()) if home.releases.is_dir() else []:
        for number in versions.numbers(entry):
            yield entry / str(number)


def _sorted(values: Iterable[Any]) -> tuple[str, ...]:
    return tuple(sorted({value for value in values if value}))


def _hash_of(home: Home, key: str) -> str | None:
    try:
        return difference_hash(media.path_of(home, key).read_bytes())
    except (OSError, MediaError):
        return None
