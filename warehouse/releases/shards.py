"""Parquet files that ``datasets`` reads as images and labels, written a row group at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from warehouse.errors import ReleaseError
from warehouse.ids import file_sha256, sha256_of
from warehouse.releases.schema import features, vote_features
from warehouse.storage import atomic, media
from warehouse.storage.home import Home

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Features

CONFIGS = {"default": "data/", "votes": "votes/", "clips": "clips/"}
"""What ``load_dataset`` offers, and the folder of each."""

_GROUP_BYTES = 16 << 20
_GROUP_ROWS = 1000
_VOTE_BYTES = 128
"""A vote is taken as this large when files are cut; it holds no picture."""


def picture_sizes(home: Home, rows: pl.DataFrame) -> list[int]:
    """Bytes of each row's crop.

    Raises:
        ReleaseError: crops are gone; names the first faces.
    """
    sizes, gone = [], []
    for face, key in rows.select("face_id", "crop").iter_rows():
        try:
            sizes.append(media.path_of(home, key).stat().st_size)
        except OSError:
            gone.append(face)
    if gone:
        raise ReleaseError(
            "the crop of every face in the media folder",
            got=f"{len(gone)} missing (faces {', '.join(gone[:3])}{' …' if len(gone) > 3 else ''})",
            hint="ingest their batch again, which makes the crops anew from the video",
        )
    return sizes


def write_faces(
    folder: Path, rows: pl.DataFrame, *, home: Home, split: str, shard_bytes: int
) -> dict[str, int]:
    """Write one split of config ``default`` below ``folder``.

    Returns:
        rows per file (relative to ``folder``), and under ``""`` the bytes in memory.
    """
    return write(
        folder,
        rows,
        stem=f"data/{split}",
        kind=features(),
        sizes=picture_sizes(home, rows),
        shard_bytes=shard_bytes,
        table=partial(_faces, home=home),
    )


def write_votes(folder: Path, votes: pl.DataFrame, *, shard_bytes: int) -> dict[str, int]:
    """Write config ``votes`` below ``folder``; returns as ``write_faces`` does."""
    return write(
        folder,
        votes,
        stem="votes/votes",
        kind=vote_features(),
        sizes=[_VOTE_BYTES] * len(votes),
        shard_bytes=shard_bytes,
        table=_plain,
    )


def picture(home: Home, key: str) -> bytes:
    """The bytes behind a media key, proved by the hash in the key.

    Raises:
        ReleaseError: they are gone or no longer the ones that were stored.
    """
    path = media.path_of(home, key)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ReleaseError(
            f"a crop at {path}",
            got=error.strerror or "an error on reading",
            hint="ingest its batch again, which makes the crops anew from the video",
        ) from error
    if not sha256_of([data]).startswith(path.stem):
        raise ReleaseError(
            f"the crop {key} as it was stored",
            got="other bytes",
            hint="delete the file and ingest its batch again",
        )
    return data


def restored(home: Home, image: Mapping[str, Any]) -> str:
    """Media key of a released picture (``bytes``, ``path``); put back where it was lost."""
    data, suffix = image["bytes"], Path(image["path"]).suffix
    digest = sha256_of([data])
    key = f"crops/{digest[:2]}/{digest[:32]}{suffix}"
    if not (target := media.path_of(home, key)).exists():
        atomic.write_bytes(target, data)
    return key


def checksums(folder: Path, files: Sequence[str]) -> dict[str, dict[str, int | str]]:
    """Bytes and SHA-256 of files below ``folder``."""
    return {
        name: {
            "bytes": (folder / name).stat().st_size,
            "sha256": file_sha256(str(folder / name)),
        }
        for name in sorted(files)
    }


def by_config(files: Mapping[str, Mapping[str, int | str]]) -> dict[str, str]:
    """One SHA-256 per config, over the checksums of its files.

    That of ``default`` says whether two releases teach a model the same: neither a clock nor a
    home's pseudonyms are in its rows, as they are in the votes.
    """
    sums: dict[str, list[bytes]] = {}
    for name, facts in sorted(files.items()):
        config = next((known for known, place in CONFIGS.items() if name.startswith(place)), None)
        if config is not None:
            sums.setdefault(config, []).append(f"{name} {facts['sha256']}\n".encode())
    return {config: sha256_of(lines) for config, lines in sums.items()}


def write(
    folder: Path,
    rows: pl.DataFrame,
    *,
    stem: str,
    kind: Features,
    sizes: list[int],
    shard_bytes: int,
    table: Callable[[pl.DataFrame, pa.Schema], pa.Table],
) -> dict[str, int]:
    """Write rows to ``<stem>-NNNNN-of-NNNNN.parquet`` below ``folder``, a row group at a time.

    Args:
        sizes: bytes of each row, roughly: where files and row groups are cut.
        table: gives a slice of ``rows`` the columns of ``kind``.

    Returns:
        as ``write_faces``.
    """
    import pyarrow.parquet as pq

    schema = kind.arrow_schema
    words = [name for name, value in kind.items() if getattr(value, "dtype", "") == "string"]
    cuts = list(_cut(sizes, shard_bytes, rows_at_most=len(sizes)))
    written = {"": 0}
    for number, (first, last) in enumerate(cuts):
        name = f"{stem}-{number:05d}-of-{len(cuts):05d}.parquet"
        (folder / name).parent.mkdir(exist_ok=True)
        with pq.ParquetWriter(
            folder / name,
            schema,
            compression="zstd",
            use_dictionary=words,
            write_page_index=True,
            # Cut pages where the content says so: a Hub then stores what two versions share once.
            use_content_defined_chunking=True,
        ) as writer:
            groups = _cut(sizes[first:last], _GROUP_BYTES, rows_at_most=_GROUP_ROWS)
            for start, stop in groups:
                group = table(rows[first + start : first + stop], schema)
                writer.write_table(group)
                written[""] += group.nbytes
        written[name] = last - first
    return written


def _cut(sizes: Sequence[int], limit: int, *, rows_at_most: int) -> Iterator[tuple[int, int]]:
    """Half-open ranges, each of at most ``limit`` bytes (or one row) and ``rows_at_most`` rows."""
    start, held = 0, 0
    for index, size in enumerate(sizes):
        if index > start and (held + size > limit or index - start >= rows_at_most):
            yield start, index
            start, held = index, 0
        held += size
    if sizes:
        yield start, len(sizes)


def _plain(rows: pl.DataFrame, schema: pa.Schema) -> pa.Table:
    import pyarrow as pa

    plain = rows.to_arrow()
    columns = [plain[wanted.name].combine_chunks().cast(wanted.type) for wanted in schema]
    return pa.Table.from_arrays(columns, schema=schema)


def _faces(rows: pl.DataFrame, schema: pa.Schema, *, home: Home) -> pa.Table:
    import pyarrow as pa

    pictures = [
        {"bytes": picture(home, key), "path": f"{face}{Path(key).suffix}"}
        for face, key in rows.select("face_id", "crop").iter_rows()
    ]
    image = pa.array(pictures, type=schema.field("image").type)
    rest = _plain(rows, pa.schema([field for field in schema if field.name != "image"]))
    columns = [image if field.name == "image" else rest[field.name] for field in schema]
    return pa.Table.from_arrays(columns, schema=schema)
