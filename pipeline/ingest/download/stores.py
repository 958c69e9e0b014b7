"""Files of an object store, one or all below an address, through whatever fsspec knows."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.ingest.download.retry import (
    CHUNK,
    FetchLimits,
    PassingError,
    again,
    name_of,
    refuse_size,
    refused,
)
from warehouse.errors import MediaError
from warehouse.storage import atomic


def copy(address: str, folder: Path, marks: dict[str, str], limits: FetchLimits) -> dict[str, str]:
    """The marks of the files at or below an address; as ``fetching.fetch``."""
    import fsspec

    try:
        files, base = fsspec.core.url_to_fs(address, skip_instance_cache=True)
    except (ValueError, ImportError) as error:
        raise refused(address, f"unreachable: {error}") from None
    there = again(limits, address, lambda: _listed(files, base, address, limits))
    changed = []
    for name, (key, size, mark) in sorted(there.items()):
        refuse_size(size, limits)
        if marks.get(name) != mark or not (folder / name).is_file():
            changed.append(partial(_copied, files, key, folder / name, limits))
    with ThreadPoolExecutor(limits.at_once) as pool:
        futures = [pool.submit(again, limits, address, attempt) for attempt in changed]
        try:
            for future in futures:
                future.result()
        except BaseException as error:
            # One that cannot be had speaks for all: the address is not there as it was listed.
            pool.shutdown(wait=False, cancel_futures=True)
            if not isinstance(error, Exception):
                limits.stopped.set()
            raise
    return {name: mark for name, (_, _, mark) in sorted(there.items())}


def _listed(
    files: Any, base: str, address: str, limits: FetchLimits
) -> dict[str, tuple[str, int, str]]:
    """Relative path to key, size and mark of every file at or below an address."""
    try:
        files.invalidate_cache()
        if files.isfile(base):
            listed = {name_of(address): files.info(base)}
        else:
            below = files.find(base, detail=True)
            listed = {
                os.path.relpath(key, base): facts
                for key, facts in below.items()
                if facts.get("type", "file") == "file" and not key.endswith("/")
            }
    except FileNotFoundError:
        listed = {}
    except Exception as error:  # each store has errors of its own
        raise _passing(error) from error
    # Keys are free text: one that would leave the folder, or hide in it, is no file of ours.
    safe = {
        name: facts
        for name, facts in listed.items()
        if not any(part.startswith(".") for part in PurePosixPath(name).parts)
        and not PurePosixPath(name).is_absolute()
    }
    if not safe:
        raise refused(address, "gone: nothing is there")
    if len(safe) > limits.files:
        raise refused(address, f"too_large: {len(safe)} files, at most {limits.files}")
    marks = ("ETag", "etag", "md5Hash", "LastModified", "last_modified", "mtime", "created")
    return {
        name: (
            str(facts["name"]),
            int(facts.get("size") or 0),
            f"{facts.get('size')} " + next((str(facts[m]) for m in marks if facts.get(m)), ""),
        )
        for name, facts in safe.items()
    }


def _copied(files: Any, key: str, target: Path, limits: FetchLimits) -> None:
    try:
        with atomic.replace_file(target) as draft:
            size = 0
            with files.open(key, "rb") as source, open(draft, "wb") as sink:
                while piece := source.read(CHUNK):
                    size += len(piece)
                    refuse_size(size, limits)
                    sink.write(piece)
    except MediaError:
        raise
    except Exception as error:
        raise _passing(error) from error


def _passing(error: Exception) -> Exception:
    """What a store raised, as something to try again or not."""
    kind = type(error).__name__
    if isinstance(error, PermissionError) or "Credentials" in kind:
        return MediaError(
            "a store that lets us read",
            got=f"unreachable: {kind}",
            hint="give credentials as its own tools take them (AWS_* variables, a profile)",
        )
    if isinstance(error, FileNotFoundError):
        return MediaError("a file that is there", got="gone: no such key", hint="check the address")
    return PassingError(kind)
