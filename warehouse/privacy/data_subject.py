"""Find everything a home stores about a data subject or a video."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import polars as pl

from warehouse.errors import MediaError, SettingsError
from warehouse.ids import fold_name
from warehouse.privacy import inbox
from warehouse.releases import manifest, versions
from warehouse.releases.schema import FACE_FILES
from warehouse.storage import downloads, media, tables
from warehouse.storage.home import Home
from warehouse.storage.schema import TABLES

KINDS = ("subject", "video")
SIGNATURE_SIDE = 16
PICTURE_BYTES = 64 << 20
"""A larger file is not read as a picture."""

_IDS = ("face_id", "track_id", "video_id", "subject_id")


@dataclass(frozen=True)
class DataSubject:
    """A subject or a video and everything stored about it; every field sorted.

    Attributes:
        kind: ``subject`` or ``video``.
        name: the subject's or video's id.
        faces: ids of its faces, and of synthetic faces that edit one of them.
        tracks: ids of its tracks.
        items: ids of its clips, segments, dialogues and sensors.
        videos: ids of videos in which no other subject is known.
        shared: ids of videos that show other subjects too; their frames show this one as well.
        crops: media keys of its crops.
        contexts: media keys of frames that show it.
        sources: paths and URLs of its videos, shared ones included, and their origins.
        signatures: perceptual hashes of its pictures, see ``difference_hash``.
        names: spellings of the name that the home holds, see ``ids.fold_name``.
        sizes: bytes of its files; empty if one is unknown.
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
    names: tuple[str, ...] = ()
    sizes: tuple[int, ...] = ()
    items: tuple[str, ...] = ()

    @property
    def spellings(self) -> tuple[str, ...]:
        """Return the name and its other spellings."""
        return tuple(dict.fromkeys((self.name, *self.names)))

    def is_of_shared(self, column: str) -> pl.Expr:
        """Match ids of shared videos and of what was cut from them."""
        first = pl.col(column).str.split("-").list.first()
        whole = pl.col(column).is_in(pl.Series(self.shared, dtype=pl.String).implode())
        cut = first.is_in(pl.Series(self.shared, dtype=pl.String).implode())
        return (whole | cut).fill_null(False)

    @property
    def ids(self) -> tuple[str, ...]:
        """Return the ids that are long enough to search for in any file."""
        return (*self.videos, *self.tracks, *self.faces, *self.items)

    def is_named(self, text: str | None) -> bool:
        """Return whether a declared subject is this one."""
        return self.kind == "subject" and bool(text) and is_same(self.kind, text, self.name)

    def merged(self, other: DataSubject) -> DataSubject:
        """Return the union with what was found at another time."""
        both: dict[str, Any] = {}
        for item in fields(self):
            one, two = getattr(self, item.name), getattr(other, item.name)
            both[item.name] = tuple(sorted({*one, *two})) if isinstance(one, tuple) else one
        if not (self.sizes and other.sizes):
            both["sizes"] = ()
        # What was once a video of its own may have been declared as shared since, or the reverse.
        both["shared"] = tuple(sorted({*both["shared"]} - {*both["videos"]}))
        return DataSubject(**both)

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> DataSubject:
        fields: dict[str, Any] = json.loads(text)
        lists = {key: tuple(value) for key, value in fields.items() if isinstance(value, list)}
        return cls(**(fields | lists))


def is_same(kind: str, one: str | None, other: str) -> bool:
    """Return whether two ids name one subject, in any spelling, or one video."""
    if one is None or kind != "subject":
        return one == other
    return fold_name(one) == fold_name(other)


def find(home: Home, kind: str, name: str) -> DataSubject:
    """Collect a subject's or a video's data from tables, releases and inbox.

    Raises:
        SettingsError: the id is unknown.
    """
    if kind not in KINDS:
        raise SettingsError(
            "Unknown kind of data subject", got=repr(kind), hint="use subject or video"
        )
    known = _known(home)
    column = f"{kind}_id"
    spellings = {one for one in known[column].drop_nulls().unique() if is_same(kind, one, name)}
    spellings |= _in_manifests(home, kind, name)
    if kind == "subject":
        spoken = _spoken(home, name)
        if not spellings:
            known = pl.concat([known, spoken])
        spellings |= {one for one in spoken[column].unique() if is_same(kind, one, name)}
    listed = inbox.find_listed(home, kind, name, exhaustive=not spellings)
    if not spellings and not listed:
        raise SettingsError(
            f"There is no {kind} {name!r} in {home.root}",
            got=f"{known[column].n_unique()} others in its tables and releases",
            hint=f'list the ids: risorius sql "SELECT DISTINCT {column} FROM '
            f'{"identities" if kind == "subject" else "videos"}"',
        )
    declared = known.filter(pl.col(column).is_in(sorted(spellings)))
    others = known.filter(~pl.col(column).is_in(sorted(spellings)))["video_id"]
    # A list may declare a file that was not ingested yet, or without a subject.
    named = pl.col("subject_id").is_not_null() & ~pl.col("subject_id").str.starts_with("video-")
    taken = {*known.filter(named)["video_id"]} - {*declared["video_id"]}
    listed = {uri: video for uri, video in listed.items() if video not in taken}
    seen_in = {*declared["video_id"], *listed.values()} - {None, ""}
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
    contexts = _sorted([*faces["context"], *frames["context"]])
    sources = {*videos["uri"], *_origins(home, videos["uri"]), *listed}
    return DataSubject(
        kind=kind,
        name=name,
        faces=_sorted([*own["face_id"], *edits["face_id"]]),
        tracks=_sorted(own["track_id"]),
        videos=tuple(sorted(whole)),
        shared=tuple(sorted(shared)),
        crops=crops,
        contexts=contexts,
        sources=_sorted(sources),
        signatures=_signatures(home, (*crops, *contexts), sources),
        names=_sorted(spellings),
        sizes=_sizes(home, videos, sources),
        items=_items(home, whole, _sorted(own["track_id"]), spellings, shared=shared),
    )


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
    names = _IDS
    faces = tables.scan(home, "faces").select("face_id", "track_id", "video_id")
    identities = tables.scan(home, "identities").select("face_id", "subject_id")
    tracks = tables.scan(home, "tracks").select("track_id", "video_id", "subject_id")
    videos = tables.scan(home, "videos").select("video_id", "subject_id")
    segments = tables.scan(home, "segments").select("video_id", subject_id="subject_ids")
    found = [
        segments.explode("subject_id")
        .with_columns(face_id=pl.lit(None, dtype=pl.String), track_id=pl.lit(None, dtype=pl.String))
        .select(names),
        faces.join(identities, on="face_id", how="left").select(names),
        tracks.with_columns(face_id=pl.lit(None, dtype=pl.String)).select(names),
        videos.with_columns(
            face_id=pl.lit(None, dtype=pl.String), track_id=pl.lit(None, dtype=pl.String)
        ).select(names),
    ]
    for folder in _versions(home):
        for pattern in FACE_FILES.values():
            files = sorted(folder.glob(pattern))
            if files:
                found.append(pl.scan_parquet(files, glob=False).select(names))
    return pl.concat(found).collect().filter(~pl.all_horizontal(pl.col(names).is_null()))


def _spoken(home: Home, name: str) -> pl.DataFrame:
    """Return the speakers of videos in which a speaker has this name.

    A name of a speaker may be a role that people share (``A``), so it tells which videos a
    subject is in only where nothing else does.
    """
    rows = tables.scan(home, "segments").select("video_id", subject_id="speaker").unique()
    speakers = rows.filter(pl.col("subject_id").is_not_null()).collect()
    theirs = [is_same("subject", one, name) for one in speakers["subject_id"]]
    videos = speakers.filter(pl.Series(theirs, dtype=pl.Boolean))["video_id"]
    none = pl.lit(None, dtype=pl.String)
    found = speakers.filter(pl.col("video_id").is_in(videos.implode()))
    return found.with_columns(face_id=none, track_id=none).select(_IDS)


def _items(
    home: Home,
    videos: Iterable[str],
    tracks: Iterable[str],
    names: Iterable[str],
    *,
    shared: Iterable[str],
) -> tuple[str, ...]:
    """Return the ids of what was cut from videos, by video, track and subject.

    A dialogue is about everyone in it.
    """
    everyone = sorted({*videos, *shared})
    dialogues = tables.scan(home, "segments").filter(
        pl.col("video_id").is_in(everyone) & pl.col("dialogue_id").is_not_null()
    )
    ids = dialogues.select(pl.format("{}-d-{}", "video_id", "dialogue_id").unique()).collect()
    found: list[str] = ids.to_series().to_list()
    for table, key in (("clips", "clip_id"), ("segments", "segment_id"), ("sensors", "sensor_id")):
        frame = tables.scan(home, table)
        columns = set(TABLES[table].columns)
        theirs = pl.col("video_id").is_in(sorted(videos))
        if "track_id" in columns:
            theirs |= pl.col("track_id").is_in(sorted(tracks))
        if "speaker" in columns:
            theirs |= pl.col("speaker").is_in(sorted(names))
            named = pl.element().is_in(sorted(names))
            theirs |= pl.col("subject_ids").list.eval(named).list.any()
        own = frame.filter(theirs.fill_null(False)).select(key).collect()
        found.extend(own[key])
    return _sorted(found)


def _origins(home: Home, uris: Iterable[str]) -> set[str]:
    return downloads.origins(str(path) for uri in uris for path in inbox.local_paths(home, uri))


def _in_manifests(home: Home, kind: str, name: str) -> set[str]:
    """Return the spellings that manifests list, even without rows."""
    return {
        member
        for folder in _versions(home)
        for member in manifest.read(folder)["splits"].get("members", {}).get(kind, {})
        if is_same(kind, member, name)
    }


def _versions(home: Home) -> Iterable[Path]:
    for entry in sorted(home.releases.iterdir()) if home.releases.is_dir() else []:
        for number in versions.numbers(entry):
            yield entry / str(number)


def _sorted(values: Iterable[Any]) -> tuple[str, ...]:
    return tuple(sorted({value for value in values if value}))


def _signatures(home: Home, keys: Iterable[str], sources: Iterable[str]) -> tuple[str, ...]:
    """Return the hashes of media files and of pictures among the sources."""
    found = set()
    for key in keys:
        try:
            found.add(difference_hash(media.path_of(home, key).read_bytes()))
        except (OSError, MediaError):
            continue
    for path in {path for uri in sources for path in inbox.local_paths(home, uri)}:
        if path.is_file() and path.stat().st_size <= PICTURE_BYTES:
            found.add(difference_hash(path.read_bytes()))
    return _sorted(text for text in found if text and _is_distinct(text))


def _is_distinct(signature: str) -> bool:
    """Return whether a hash differs from that of a picture of one colour."""
    bits = int(signature, 16).bit_count()
    return 32 <= bits <= 4 * len(signature) - 32


def _sizes(home: Home, videos: pl.DataFrame, sources: Iterable[str]) -> tuple[int, ...]:
    sizes = set(videos["bytes"].to_list())
    for path in {path for uri in sources for path in inbox.local_paths(home, uri)}:
        if path.is_file():
            sizes.add(path.stat().st_size)
    return () if None in sizes or 0 in sizes else tuple(sorted(sizes))
