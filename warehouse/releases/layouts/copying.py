"""Write the pictures of a Parquet table with several threads."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

from warehouse.releases.layouts.files import write_picture

if TYPE_CHECKING:
    import pyarrow as pa

THREADS = min(8, (os.cpu_count() or 1) + 1)

Job = tuple[Any, Sequence[str], str]
"""Bytes of a picture, names of its files, and suffix of the bytes."""


def of_faces(table: pa.Table, places: Mapping[str, Any]) -> Iterator[Job]:
    """Yield the pictures of faces.

    Args:
        table: ``face_id, image``.
        places: face to the name of a file or a list of names; others are skipped.
    """
    images = table["image"].combine_chunks()
    data = images.field("bytes")
    faces, paths = table["face_id"].to_pylist(), images.field("path").to_pylist()
    for index, (face, path) in enumerate(zip(faces, paths, strict=True)):
        if (wanted := places.get(face)) is not None:
            names = [wanted] if isinstance(wanted, str) else wanted
            yield data[index].as_buffer(), names, os.path.splitext(path)[1]


def of_clips(
    table: pa.Table, folders: Mapping[str, str], name: Callable[[int], str]
) -> Iterator[Job]:
    """Yield the frames of clips.

    Args:
        table: ``clip_id, frames``.
        folders: clip to its folder; others are skipped.
        name: file name of a frame, counted from 0.
    """
    frames = table["frames"].combine_chunks()
    ends = frames.offsets.to_pylist()
    images = frames.values
    data, paths = images.field("bytes"), images.field("path")
    for row, clip in enumerate(table["clip_id"].to_pylist()):
        if (folder := folders.get(clip)) is None:
            continue
        for number, index in enumerate(range(ends[row], ends[row + 1])):
            suffix = os.path.splitext(paths[index].as_py())[1]
            yield data[index].as_buffer(), [f"{folder}/{name(number)}"], suffix


def write(
    pool: ThreadPoolExecutor,
    jobs: Sequence[Job],
    place: Callable[[str], str],
    *,
    size: int | None,
    gray: bool,
) -> None:
    """Write all jobs; the first failure is raised.

    Args:
        place: path of a name, its folder made.
    """
    # Threads would race for a new folder, so all are made here.
    placed = [(data, [place(name) for name in names], suffix) for data, names, suffix in jobs]
    batches = (placed[start::THREADS] for start in range(THREADS))
    work = partial(_write, size=size, gray=gray)
    for done in [pool.submit(work, batch) for batch in batches]:
        done.result()


def _write(jobs: Sequence[Job], *, size: int | None, gray: bool) -> None:
    for data, paths, suffix in jobs:
        write_picture(data, paths, suffix=suffix, size=size, gray=gray)
