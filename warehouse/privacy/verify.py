"""Verify an erasure: search a home for ids and images of a data subject."""

from __future__ import annotations

import base64
import binascii
import re
import unicodedata
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from warehouse.ids import file_sha256, video_id
from warehouse.privacy.data_subject import PICTURE_BYTES, DataSubject, difference_hash
from warehouse.storage import media, mirror, tables
from warehouse.storage.home import Home

NEAR_BITS = 24
"""Maximum distance in bits, of 256, between images of one crop.

Measured on FER+ valid, 48 px. A JPEG of 112 px differs by at most 14 bits from its face, one of
40 px at quality 70 by at most 23 in 99 of 100 cases. The nearest other of 1,500 faces differs by
at least 35 in 99 of 100 cases, median 78 (FER2013 holds repeats)."""

_MAGIC = (b"\x89PNG", b"\xff\xd8\xff", b"RIFF", b"BM", b"II*\0", b"MM\0*", b"GIF8", b"P5", b"P6")
"""First bytes of pictures, because drafts and uploads have no suffix."""

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
        traces: ``<file>: <what>`` for every id, address or hash that was found, for images
            similar to an erased one that belong to no other row, and for media without a row.
        alike: similar images of other rows, to be checked by a person: possibly the same human
            under another id.
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
    patterns, signatures = _search_patterns(home, subject), _Signatures(subject)
    others = set(tables.read(home, "videos")["video_id"])
    named = media.named(home)
    files = pictures = 0
    traces: list[str] = []
    alike: list[str] = []
    for path in sorted(home.root.rglob("*")):
        if skip and (path == skip or skip in path.parents):
            continue
        name = str(path.relative_to(home.root))
        if path.is_symlink() or not path.is_file():
            traces += [f"{name}: {what}" for what in patterns.find(path.name.encode())]
            continue
        files += 1
        traces += [f"{name}: {what}" for what in _find_words(path, patterns)]
        if path.suffix == ".parquet":
            traces += [f"{name}: {what}" for what in _find_in_columns(path, subject)]
        for what, data in _images(path):
            pictures += 1
            if (nearest := signatures.distance(data)) is not None and nearest <= NEAR_BITS:
                line = f"{name}{what}: {nearest} of 256 bits from an erased picture"
                (alike if _belongs_to_others(home, path, named, others) else traces).append(line)
    if mirror.find(home.media / "any") is None:
        orphans = [path.relative_to(home.root) for path in media.orphans(home)]
        traces += [f"{path}: no row names this file" for path in orphans]
    return Verification(files=files, pictures=pictures, traces=traces, alike=alike)


def is_alike(subject: DataSubject, path: Path) -> bool:
    """Return whether a file is an image similar to one of the data subject."""
    signatures = _Signatures(subject)
    distances = (signatures.distance(data) for _, data in _images(path))
    return any(found is not None and found <= NEAR_BITS for found in distances)


class _Signatures:
    """Perceptual hashes of a data subject's pictures."""

    def __init__(self, subject: DataSubject) -> None:
        self.bits = np.array(
            [list(bytes.fromhex(text)) for text in subject.signatures], dtype=np.uint8
        )

    def distance(self, data: bytes) -> int | None:
        """Return the bits to the nearest hash; None if there is none to compare."""
        found = difference_hash(data) if len(self.bits) else None
        if found is None:
            return None
        own = np.frombuffer(bytes.fromhex(found), np.uint8)
        return int(np.unpackbits(self.bits ^ own, axis=1).sum(axis=1).min())


def _belongs_to_others(home: Home, path: Path, named: media.Named, others: set[str]) -> bool:
    """Return whether the file is of another data subject."""
    if home.media in path.parents:
        return named.covers(path.relative_to(home.media).as_posix())
    if home.inbox in path.parents:
        return video_id(file_sha256(str(path))) in others
    return home.releases in path.parents or home.models in path.parents


@dataclass(frozen=True)
class _Patterns:
    """Patterns for any file, and for text files only (short words)."""

    anywhere: re.Pattern[bytes] | None
    in_text: re.Pattern[bytes] | None

    def find(self, data: bytes, *, binary: bool = False) -> set[str]:
        """Return the words in ``data``."""
        patterns = (self.anywhere, None if binary else self.in_text)
        return {
            match.decode(errors="replace")
            for pattern in patterns
            if pattern
            for match in pattern.findall(data)
        }


def _search_patterns(home: Home, subject: DataSubject) -> _Patterns:
    hashes = {
        Path(key).stem for key in {*subject.crops, *subject.contexts} - media.named(home).keys
    }
    # A video id is a prefix of its track ids, and a track id of its face ids.
    known = {*subject.videos, *subject.tracks}
    heads = [one for one in subject.ids if not any(one.startswith(f"{head}-") for head in known)]
    names = {
        unicodedata.normalize(form, one) for one in subject.spellings for form in ("NFC", "NFD")
    }
    words = {*heads, *hashes, *set(subject.sources) - _shared(home, subject), *names}
    words |= set(subject.spellings)
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
    found = patterns.find(path.name.encode(errors="surrogateescape"))
    tail = b""
    try:
        with open(path, "rb") as handle:
            while chunk := handle.read(_CHUNK):
                found |= patterns.find(tail + chunk, binary=b"\0" in chunk)
                tail = chunk[-512:]
        for name, data in _entries(path):
            found |= patterns.find(name.encode()) | patterns.find(data, binary=b"\0" in data)
    except OSError as error:
        found.add(f"unreadable ({error.strerror})")
    return sorted(found)


def _entries(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield names and unpacked bytes of an archive's files."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            try:
                small = entry.file_size <= PICTURE_BYTES and not entry.flag_bits & 1
                yield entry.filename, archive.read(entry) if small else b""
            except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError):
                yield entry.filename, b""


def _find_in_columns(path: Path, subject: DataSubject) -> Iterator[str]:
    """Yield ids in text columns; compression hides them in the bytes."""
    names = {*subject.spellings, *subject.ids}
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
    with open(path, "rb") as handle:
        head = handle.read(4)
    if head.startswith(_MAGIC) and path.stat().st_size <= PICTURE_BYTES:
        yield "", path.read_bytes()
    elif head == b"PK\3\4":
        for name, data in _entries(path):
            if data.startswith(_MAGIC):
                yield f" entry {name}", data
    elif path.suffix == ".html":
        for number, text in enumerate(_INLINE.findall(path.read_bytes())):
            try:
                yield f" picture {number}", base64.b64decode(text)
            except binascii.Error:
                continue
    elif path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            file = pq.ParquetFile(path)
        except (pa.ArrowInvalid, OSError):
            return  # reported as unreadable by the search of its columns
        for column in {"image", "frames"} & set(file.schema_arrow.names):
            for batch in file.iter_batches(batch_size=64, columns=[column]):
                for number, cell in enumerate(batch.column(0).to_pylist()):
                    for image in cell if isinstance(cell, list) else [cell]:
                        if image and image["bytes"]:
                            yield f" row {number} of a batch", image["bytes"]
