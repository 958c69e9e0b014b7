"""Proof that somebody is gone: a search of a whole home for their ids and their pictures."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from warehouse.privacy.data_subject import DataSubject, signature
from warehouse.storage import tables
from warehouse.storage.home import Home
from warehouse.storage.schema import TABLES

NEAR_BITS = 24
"""Of 256. Measured on FER+ valid, 48 px: a face as a JPEG of 112 px lies within 14 bits of itself,
one of 40 px at quality 70 within 23 in 99 of 100 cases; of 1,500 faces the nearest other one lies
35 or more away in 99 of 100, and the median 78 (FER2013 itself holds repeats)."""

_PICTURES = {".png", ".jpg", ".jpeg", ".webp"}
_INLINE = re.compile(rb"data:image/[a-z]+;base64,([A-Za-z0-9+/=]+)")
_SHORTEST, _CERTAIN = 3, 6
"""Shorter words are looked for in columns alone; up to the second, in text but not in noise."""

_CHUNK = 1 << 22


@dataclass(frozen=True)
class Absence:
    """What a search found.

    Attributes:
        files: files read, every one below the home; ``pictures`` decoded in them.
        traces: ``<file>: <what>`` for every id, address, hash or picture still there.
        alike: faces of others so like an erased crop that a person should look: perhaps the same
            human under another id.
    """

    files: int
    pictures: int
    traces: list[str]
    alike: list[str]

    @property
    def proved(self) -> bool:
        return not self.traces


def search(home: Home, leaver: DataSubject, *, skip: Path | None = None) -> Absence:
    """Read every file of a home: as bytes, decoded Parquet columns too, and as pictures.

    Short ids (a subject called ``ann``) count as traces only where they stand as a whole word, or
    as a whole value of a column.

    Args:
        skip: a folder not to look into: the journal of the erasure itself.
    """
    needles = _needles(home, leaver)
    wanted = np.array([list(bytes.fromhex(text)) for text in leaver.signatures], dtype=np.uint8)
    files = pictures = 0
    traces: list[str] = []
    alike: list[str] = []
    for path in sorted(home.root.rglob("*")):
        if not path.is_file() or path.is_symlink() or (skip and skip in path.parents):
            continue
        files += 1
        name = str(path.relative_to(home.root))
        traces += [f"{name}: {what}" for what in _words(path, needles)]
        if path.suffix == ".parquet":
            traces += [f"{name}: {what}" for what in _columns(path, leaver)]
        for what, data in _pictures(path):
            pictures += 1
            found = signature(data)
            if found is None or not len(wanted):
                continue
            bits = np.unpackbits(wanted ^ np.frombuffer(bytes.fromhex(found), np.uint8), axis=1)
            nearest = int(bits.sum(axis=1).min())
            if nearest <= NEAR_BITS:
                alike.append(f"{name}{what}: {nearest} of 256 bits from an erased crop")
    return Absence(files=files, pictures=pictures, traces=traces, alike=alike)


@dataclass(frozen=True)
class _Needles:
    """What to look for in bytes: ``anywhere``, and ``in_text`` what noise would match too often."""

    anywhere: re.Pattern[bytes] | None
    in_text: re.Pattern[bytes] | None


def _needles(home: Home, leaver: DataSubject) -> _Needles:
    used: set[str] = set()
    for table in ("faces", "synthetic_faces"):
        names = [name for name in ("crop", "context") if name in TABLES[table].columns]
        rows = tables.scan(home, table).select(names).collect()
        used.update(key for name in names for key in rows[name].drop_nulls())
    hashes = {Path(key).stem for key in {*leaver.crops, *leaver.contexts} - used}
    # The id of a video begins those of its tracks and faces, that of a track those of its faces.
    known = {*leaver.videos, *leaver.tracks}
    heads = [one for one in leaver.ids if not any(one.startswith(f"{head}-") for head in known)]
    words = {*heads, *hashes, *set(leaver.sources) - _shared(home, leaver), leaver.name}
    return _Needles(
        anywhere=_pattern(word for word in words if len(word) >= _CERTAIN),
        in_text=_pattern(word for word in words if _SHORTEST <= len(word) < _CERTAIN),
    )


def _shared(home: Home, leaver: DataSubject) -> set[str]:
    """Addresses of videos whose rows stay for the others who are seen in them, and the archives
    and addresses that videos of others came from too."""
    rows = tables.scan(home, "videos").select("video_id", "uri", "source").collect()
    shared = rows.filter(pl.col("video_id").is_in(leaver.shared))
    return {*shared["uri"], *rows["source"].drop_nulls()}


def _pattern(words: Iterable[str]) -> re.Pattern[bytes] | None:
    any_of = b"|".join(re.escape(word.encode()) for word in sorted(words))
    whole = rb"(?<![A-Za-z0-9])(?:" + any_of + rb")(?![A-Za-z0-9])"
    return re.compile(whole) if any_of else None


def _words(path: Path, needles: _Needles) -> list[str]:
    found: set[str] = set()
    tail = b""
    try:
        with open(path, "rb") as handle:
            while chunk := handle.read(_CHUNK):
                window = tail + chunk
                for pattern in (needles.anywhere, None if b"\0" in chunk else needles.in_text):
                    found |= (
                        {match.decode() for match in pattern.findall(window)} if pattern else set()
                    )
                tail = window[-512:]
    except OSError as error:
        found.add(f"unreadable ({error.strerror})")
    for pattern in (needles.anywhere, needles.in_text):
        found |= (
            set(map(bytes.decode, pattern.findall(str(path.name).encode()))) if pattern else set()
        )
    return sorted(found)


def _columns(path: Path, leaver: DataSubject) -> Iterator[str]:
    """Ids in text columns, decoded: compressed pages hide them from a search for bytes."""
    names = {leaver.name, *leaver.ids}
    try:
        frame = pl.scan_parquet(path, glob=False)
        kinds = frame.collect_schema()
        texts = [name for name, kind in kinds.items() if kind in (pl.String, pl.List(pl.String))]
        rows = frame.select(texts).collect()
    except (pl.exceptions.PolarsError, OSError):
        yield "a Parquet file nobody can read"
        return
    for name in texts:
        values = rows[name].explode() if rows[name].dtype != pl.String else rows[name]
        held = values.drop_nulls().unique()
        exact = held.is_in(list(names))
        within = held.str.contains_any(list(leaver.ids)) if leaver.ids else exact
        for value in held.filter(exact | within).sort().head(3):
            yield f"{value} in column {name}"


def _pictures(path: Path) -> Iterator[tuple[str, bytes]]:
    """Pictures of a file: itself, those inlined in a page, those in ``image`` and ``frames``."""
    if path.suffix in _PICTURES:
        yield "", path.read_bytes()
    elif path.suffix == ".html":
        for number, text in enumerate(_INLINE.findall(path.read_bytes())):
            try:
                yield f" picture {number}", base64.b64decode(text)
            except binascii.Error:
                continue
    elif path.suffix == ".parquet":
        import pyarrow.parquet as pq

        file = pq.ParquetFile(path)
        for column in {"image", "frames"} & set(file.schema_arrow.names):
            for batch in file.iter_batches(batch_size=64, columns=[column]):
                for number, held in enumerate(batch.column(0).to_pylist()):
                    for image in held if isinstance(held, list) else [held]:
                        if image and image["bytes"]:
                            yield f" row {number} of a batch", image["bytes"]
