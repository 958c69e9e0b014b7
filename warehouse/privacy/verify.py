"""Verify an erasure: search a home for ids and images of a data subject."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from warehouse.privacy.data_subject import DataSubject, difference_hash
from warehouse.storage import tables
from warehouse.storage.home import Home
from warehouse.storage.schema import TABLES

NEAR_BITS = 24
"""Maximum distance in bits, of 256, between images of one crop.

Measured on FER+ valid, 48 px. A JPEG of 112 px differs by at most 14 bits from its face, one of
40 px at quality 70 by at most 23 in 99 of 100 cases. The nearest other of 1,500 faces differs by
at least 35 in 99 of 100 cases, median 78 (FER2013 holds repeats)."""

_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp"}
_INLINE = re.compile(rb"data:image/[a-z]+;base64,([A-Za-z0-9+/=]+)")
_MIN_TEXT, _MIN_BINARY = 3, 6
"""Shortest word to search for in text files, and in binary files, which match by chance.
Shorter words are searched for in Parquet columns only."""

_CHUNK = 1 << 22


@dataclass(frozen=True)
class Verification:
    """Result of a search.

    Attributes:
        files: number of files read, all below the home.
        pictures: number of images decoded in them.
        traces: ``<file>: <what>`` for every id, address or hash that was found.
        alike: images similar to an erased crop, to be checked by a person: possibly the same
            human under another id.
    """

    files: int
    pictures: int
    traces: list[str]
    alike: list[str]

    @property
    def complete(self) -> bool:
        return not self.traces


def search(home: Home, subject: DataSubject, *, skip: Path | None = None) -> Verification:
    """Search the bytes, Parquet columns and images of every file of a home.

    An id counts as a trace only as a whole word, or as a whole value of a column.

    Args:
        skip: folder to exclude: the journal of the erasure.
    """
    patterns = _search_patterns(home, subject)
    wanted = np.array([list(bytes.fromhex(text)) for text in subject.signatures], dtype=np.uint8)
    files = pictures = 0
    traces: list[str] = []
    alike: list[str] = []
    for path in sorted(home.root.rglob("*")):
        if not path.is_file() or path.is_symlink() or (skip and skip in path.parents):
            continue
        files += 1
        name = str(path.relative_to(home.root))
        traces += [f"{name}: {what}" for what in _find_words(path, patterns)]
        if path.suffix == ".parquet":
            traces += [f"{name}: {what}" for what in _find_in_columns(path, subject)]
        for what, data in _images(path):
            pictures += 1
            found = difference_hash(data)
            if found is None or not len(wanted):
                continue
            bits = np.unpackbits(wanted ^ np.frombuffer(bytes.fromhex(found), np.uint8), axis=1)
            nearest = int(bits.sum(axis=1).min())
            if nearest <= NEAR_BITS:
                alike.append(f"{name}{what}: {nearest} of 256 bits from an erased crop")
    return Verification(files=files, pictures=pictures, traces=traces, alike=alike)


@dataclass(frozen=True)
class _Patterns:
    """Patterns for any file, and for text files only (short words)."""

    anywhere: re.Pattern[bytes] | None
    in_text: re.Pattern[bytes] | None


def _search_patterns(home: Home, subject: DataSubject) -> _Patterns:
    used: set[str] = set()
    for table in ("faces", "synthetic_faces"):
        names = [name for name in ("crop", "context") if name in TABLES[table].columns]
        rows = tables.scan(home, table).select(names).collect()
        used.update(key for name in names for key in rows[name].drop_nulls())
    hashes = {Path(key).stem for key in {*subject.crops, *subject.contexts} - used}
    # A video id is a prefix of its track ids, and a track id of its face ids.
    known = {*subject.videos, *subject.tracks}
    heads = [one for one in subject.ids if not any(one.startswith(f"{head}-") for head in known)]
    words = {*heads, *hashes, *set(subject.sources) - _shared(home, subject), subject.name}
    return _Patterns(
        anywhere=_pattern(word for word in words if len(word) >= _MIN_BINARY),
        in_text=_pattern(word for word in words if _MIN_TEXT <= len(word) < _MIN_BINARY),
    )


def _shared(home: Home, subject: DataSubject) -> set[str]:
    """Return paths and origins that other data subjects need as well."""
    rows = tables.scan(home, "videos").select("video_id", "uri", "source").collect()
    shared = rows.filter(pl.col("video_id").is_in(subject.shared))
    return {*shared["uri"], *rows["source"].drop_nulls()}


def _pattern(words: Iterable[str]) -> re.Pattern[bytes] | None:
    any_of = b"|".join(re.escape(word.encode()) for word in sorted(words))
    whole = rb"(?<![A-Za-z0-9])(?:" + any_of + rb")(?![A-Za-z0-9])"
    return re.compile(whole) if any_of else None


def _find_words(path: Path, patterns: _Patterns) -> list[str]:
    found: set[str] = set()
    tail = b""
    try:
        with open(path, "rb") as handle:
            while chunk := handle.read(_CHUNK):
                window = tail + chunk
                for pattern in (patterns.anywhere, None if b"\0" in chunk else patterns.in_text):
                    found |= (
                        {match.decode() for match in pattern.findall(window)} if pattern else set()
                    )
                tail = window[-512:]
    except OSError as error:
        found.add(f"unreadable ({error.strerror})")
    for pattern in (patterns.anywhere, patterns.in_text):
        found |= (
            set(map(bytes.decode, pattern.findall(str(path.name).encode()))) if pattern else set()
        )
    return sorted(found)


def _find_in_columns(path: Path, subject: DataSubject) -> Iterator[str]:
    """Yield ids in text columns; compression hides them in the bytes."""
    names = {subject.name, *subject.ids}
    try:
        frame = pl.scan_parquet(path, glob=False)
        kinds = frame.collect_schema()
        texts = [name for name, kind in kinds.items() if kind in (pl.String, pl.List(pl.String))]
        rows = frame.select(texts).collect()
    except (pl.exceptions.PolarsError, OSError):
        yield "an unreadable Parquet file"
        return
    for name in texts:
        values = rows[name].explode() if rows[name].dtype != pl.String else rows[name]
        texts_found = values.drop_nulls().unique()
        exact = texts_found.is_in(list(names))
        within = texts_found.str.contains_any(list(subject.ids)) if subject.ids else exact
        for value in texts_found.filter(exact | within).sort().head(3):
            yield f"{value} in column {name}"


def _images(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield encoded images: the file, inline in HTML, or in Parquet columns."""
    if path.suffix in _SUFFIXES:
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
                for number, cell in enumerate(batch.column(0).to_pylist()):
                    for image in cell if isinstance(cell, list) else [cell]:
                        if image and image["bytes"]:
                            yield f" row {number} of a batch", image["bytes"]
