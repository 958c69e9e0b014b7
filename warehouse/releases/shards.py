"""Write Parquet shards that ``datasets`` reads as images and labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from warehouse.errors import ReleaseError
from warehouse.ids import sha256_of
from warehouse.releases.schema import features, vote_features
from warehouse.storage import atomic, media
from warehouse.storage.home import Home

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Features

_GROUP_BYTES = 16 << 20
_GROUP_ROWS = 1000
_VOTE_BYTES = 128
"""Assumed size of a vote when files are cut; it holds no image."""

_INGEST_AGAIN = "ingest its batch again, which extracts the crops from the video"

Written = tuple[dict[str, int], int]
"""Rows per file (relative to the release folder), and bytes of all rows in memory."""


def crop_sizes(home: Home, rows: pl.DataFrame) -> list[int]:
    """Return the bytes of each row's crop.

    Raises:
        ReleaseError: crops are missing; names the first faces.
    """
    sizes, missing = [], []
    for face, key in rows.select("face_id", "crop").iter_rows():
        try:
            sizes.append(media.path_of(home, key).stat().st_size)
        except OSError:
            missing.append(face)
    if missing:
        more = " …" if len(missing) > 3 else ""
        raise ReleaseError(
            "Crops are not in the media folder",
            got=f"{len(missing)} missing (faces {', '.join(missing[:3])}{more})",
            hint=_INGEST_AGAIN,
        )
    return sizes


def read_crop(home: Home, key: str) -> bytes:
    """Return the bytes of a crop, verified by the hash in its media key.

    Raises:
        ReleaseError: the crop is missing or was changed.
    """
    path = media.path_of(home, key)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ReleaseError(
            f"Crop {path} cannot be read", got=error.strerror or str(error), hint=_INGEST_AGAIN
        ) from error
    if not sha256_of([data]).startswith(path.stem):
        raise ReleaseError(
            f"Crop {key} was changed",
            got="other bytes than its name states",
            hint="delete the file and ingest its batch again",
        )
    return data


def restore_crop(home: Home, image: Mapping[str, Any]) -> str:
    """Return the media key of a released image; restore a missing file.

    Args:
        image: ``bytes`` and ``path``, as ``datasets`` stores an image.
    """
    data, suffix = image["bytes"], Path(image["path"]).suffix
    digest = sha256_of([data])
    key = f"crops/{digest[:2]}/{digest[:32]}{suffix}"
    if not (target := media.path_of(home, key)).exists():
        atomic.write_bytes(target, data)
    return key


def write_faces(
    folder: Path, rows: pl.DataFrame, *, home: Home, stem: str, shard_bytes: int
) -> Written:
    """Write faces below ``folder`` as ``<stem>-NNNNN-of-NNNNN.parquet``."""
    return write_shards(
        folder,
        rows,
        stem=stem,
        kind=features(),
        sizes=crop_sizes(home, rows),
        shard_bytes=shard_bytes,
        table=partial(_faces_table, home=home),
    )


def write_votes(folder: Path, votes: pl.DataFrame, *, shard_bytes: int) -> Written:
    """Write config ``votes`` below ``folder``."""
    return write_shards(
        folder,
        votes,
        stem="votes/votes",
        kind=vote_features(),
        sizes=[_VOTE_BYTES] * len(votes),
        shard_bytes=shard_bytes,
        table=_plain_table,
    )


def write_shards(
    folder: Path,
    rows: pl.DataFrame,
    *,
    stem: str,
    kind: Features,
    sizes: list[int],
    shard_bytes: int,
    table: Callable[[pl.DataFrame, pa.Schema], pa.Table],
) -> Written:
    """Write ``<stem>-NNNNN-of-NNNNN.parquet`` files below ``folder``.

    Memory holds one row group at a time.

    Args:
        sizes: approximate bytes of each row; they decide where files and row groups are cut.
        table: converts a slice of ``rows`` to the columns of ``kind``.
    """
    import pyarrow.parquet as pq

    schema = kind.arrow_schema
    strings = [name for name, value in kind.items() if getattr(value, "dtype", "") == "string"]
    cuts = list(_cut(sizes, shard_bytes, max_rows=len(sizes)))
    files, num_bytes = {}, 0
    for number, (first, last) in enumerate(cuts):
        name = f"{stem}-{number:05d}-of-{len(cuts):05d}.parquet"
        (folder / name).parent.mkdir(exist_ok=True)
        with pq.ParquetWriter(
            folder / name,
            schema,
            compression="zstd",
            use_dictionary=strings,
            write_page_index=True,
            # Pages cut by content let the Hub store once what two versions share.
            use_content_defined_chunking=True,
        ) as writer:
            for start, stop in _cut(sizes[first:last], _GROUP_BYTES, max_rows=_GROUP_ROWS):
                group = table(rows[first + start : first + stop], schema)
                writer.write_table(group)
                num_bytes += group.nbytes
        files[name] = last - first
    return files, num_bytes


def _cut(sizes: Sequence[int], limit: int, *, max_rows: int) -> Iterator[tuple[int, int]]:
    """Yield half-open ranges of at most ``limit`` bytes and ``max_rows``."""
    start, total = 0, 0
    for index, size in enumerate(sizes):
        if index > start and (total + size > limit or index - start >= max_rows):
            yield start, index
            start, total = index, 0
        total += size
    if sizes:
        yield start, len(sizes)


def _plain_table(rows: pl.DataFrame, schema: pa.Schema) -> pa.Table:
    import pyarrow as pa

    plain = rows.to_arrow()
    columns = [plain[field.name].combine_chunks().cast(field.type) for field in schema]
    return pa.Table.from_arrays(columns, schema=schema)


def _faces_table(rows: pl.DataFrame, schema: pa.Schema, *, home: Home) -> pa.Table:
    import pyarrow as pa

    images = [
        {"bytes": read_crop(home, key), "path": f"{face}{Path(key).suffix}"}
        for face, key in rows.select("face_id", "crop").iter_rows()
    ]
    image = pa.array(images, type=schema.field("image").type)
    rest = _plain_table(rows, pa.schema([field for field in schema if field.name != "image"]))
    columns = [image if field.name == "image" else rest[field.name] for field in schema]
    return pa.Table.from_arrays(columns, schema=schema)
