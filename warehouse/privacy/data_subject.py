"""Somebody who leaves: everything in a home that is theirs, found before anything is removed."""

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
    """One subject or video and all that is theirs; every field sorted.

    Attributes:
        kind: ``subject`` or ``video``.
        name: the id that was asked for.
        faces: face ids; ``tracks`` and ``videos`` likewise. A video is theirs when nobody else
            is known in it.
        shared: videos in which others are seen too: their frames show the leaver as well.
        crops: media keys of their crops; ``contexts`` of frames that show them.
        sources: addresses of their videos, the shared ones too, and where those came from.
        signatures: what their crops look like, as ``signature`` gives it.
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
        """Ids long enough to be searched for anywhere."""
        return (*self.videos, *self.tracks, *self.faces)

    def text(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> DataSubject:
        told: dict[str, Any] = json.loads(text)
        lists = {key: tuple(value) for key, value in told.items() if isinstance(value, list)}
        return cls(**(told | lists))


def find(home: Home, kind: str, name: str) -> DataSubject:
    """Look a subject or a video up in tables and releases.

    Raises:
        SettingsError: nobody of that name is anywhere.
    """
    known = _known(home)
    column = f"{kind}_id"
    if kind not in KINDS:
        raise SettingsError("subject or video", got=repr(kind), hint="name one of them")
    mine = known.filter(pl.col(column) == name)
    if mine.is_empty() and not _remembered(home, kind, name):
        raise SettingsError(
            f"a {kind} {name!r} in {home.root}",
            got=f"none in its tables and releases ({known[column].n_unique()} others)",
            hint=f'look it up: risorius sql "SELECT DISTINCT {column} FROM '
            f'{"identities" if kind == "subject" else "videos"}"',
        )
    others = known.filter(pl.col(column) != name)["video_id"]
    seen_in = set(mine["video_id"].drop_nulls())
    shared = seen_in & set(others.drop_nulls()) if kind == "subject" else set()
    whole = seen_in - shared
    faces = tables.read(home, "faces").filter(
        pl.col("video_id").is_in(sorted(whole))
        | pl.col("track_id").is_in(mine["track_id"].drop_nulls().unique().implode())
        | pl.col("face_id").is_in(mine["face_id"].drop_nulls().unique().implode())
    )
    frames = tables.read(home, "faces").filter(pl.col("video_id").is_in(sorted(shared)))
    videos = tables.read(home, "videos").filter(pl.col("video_id").is_in(sorted(seen_in)))
    theirs = pl.concat([mine.select("face_id", "track_id"), faces.select("face_id", "track_id")])
    return DataSubject(
        kind=kind,
        name=name,
        faces=_sorted(theirs["face_id"]),
        tracks=_sorted(theirs["track_id"]),
        videos=tuple(sorted(whole)),
        shared=tuple(sorted(shared)),
        crops=_sorted(faces["crop"]),
        contexts=_sorted([*faces["context"], *frames["context"]]),
        sources=_sorted([*videos["uri"], *_origins(home, videos["uri"])]),
        signatures=_sorted(_signature_of(home, key) for key in _sorted(faces["crop"])),
    )


def here(home: Home, uri: str) -> Path:
    """Where the file that a row names lies on this machine: in a shared home the row may have been
    written on another one, whose inbox lies elsewhere."""
    path = Path(uri)
    if home.inbox in path.parents or mirror.find(home.inbox / "any") is None:
        return path
    for at, part in enumerate(path.parts):
        if part == home.inbox.name:
            found = home.inbox.joinpath(*path.parts[at + 1 :])
            if found.is_file():
                return found
    return path


def signature(data: bytes) -> str | None:
    """64 hex digits that change little when a picture is scaled or compressed; None for no picture.

    Gray, 16 x 17 pixels, one bit per pixel: darker than its neighbour to the right or not.
    """
    import cv2
    import numpy as np

    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE) if data else None
    if image is None:
        return None
    small = cv2.resize(image, (SIGNATURE_SIDE + 1, SIGNATURE_SIDE), interpolation=cv2.INTER_AREA)
    return np.packbits(small[:, 1:] > small[:, :-1]).tobytes().hex()


def _known(home: Home) -> pl.DataFrame:
    """``face_id, track_id, video_id, subject_id`` wherever they stand together, with repeats."""
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
    for folder in _folders(home):
        for split in SPLITS:
            files = sorted((folder / "data").glob(f"{split}-*.parquet"))
            if files:
                found.append(pl.scan_parquet(files, glob=False).select(names))
    return pl.concat(found).collect().filter(~pl.all_horizontal(pl.col(names).is_null()))


def _origins(home: Home, uris: Iterable[str]) -> set[str]:
    return downloads.origins(str(here(home, uri)) for uri in uris)


def _remembered(home: Home, kind: str, name: str) -> bool:
    """Whether a release keeps a place for somebody who is in none of its rows."""
    return any(
        name in manifest.read(folder)["splits"].get("members", {}).get(kind, {})
        for folder in _folders(home)
    )


def _folders(home: Home) -> Iterable[Path]:
    for entry in sorted(home.releases.iterdir()) if home.releases.is_dir() else []:
        for number in versions.numbers(entry):
            yield entry / str(number)


def _sorted(values: Iterable[Any]) -> tuple[str, ...]:
    return tuple(sorted({value for value in values if value}))


def _signature_of(home: Home, key: str) -> str | None:
    try:
        return signature(media.path_of(home, key).read_bytes())
    except (OSError, MediaError):
        return None
