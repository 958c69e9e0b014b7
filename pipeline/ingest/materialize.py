"""What a batch names elsewhere is brought into its folder: addresses fetched, archives unpacked."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path

from pipeline.ingest import archive as archives
from pipeline.ingest import download, manifest
from pipeline.ingest.archive import ArchiveLimits
from pipeline.ingest.download import FetchLimits
from pipeline.ingest.manifest import Source
from warehouse.errors import MediaError
from warehouse.storage import atomic, downloads
from warehouse.storage.downloads import HIDDEN, Arrival

Say = Callable[[str, int, int], None]


def bring(
    batch: Path,
    *,
    fetch: FetchLimits | None = None,
    unpack: ArchiveLimits | None = None,
    say: Say | None = None,
) -> int:
    """Fetch and unpack what ``inbox/<batch>/`` lists; return how many sources were looked at.

    What is unchanged where it came from is left as it is. A source that cannot be had keeps what
    came of it earlier and is listed with its reason; the others go on.

    Raises:
        SettingsError: a sidecar or the listing cannot be read.
    """
    wanted = [source for source in manifest.listed(batch) if manifest.arrives(source)]
    fetch = fetch or FetchLimits()
    # Two that name one address share a folder, so only one of them is fetched at a time.
    lines: dict[str, list[Source]] = {}
    for source in wanted:
        lines.setdefault(source.uri, []).append(source)
    number = 0
    with ThreadPoolExecutor(fetch.at_once) as pool:
        work = [pool.submit(_brought_all, batch, line, fetch, unpack) for line in lines.values()]
        try:
            for future in as_completed(work):
                for source in future.result():
                    number += 1
                    if say:
                        say(source.file_name, number, len(wanted))
        except BaseException:
            # Ctrl-C: what is whole stays, halves go on next time.
            fetch.stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return len(wanted)


def _brought_all(
    batch: Path, line: list[Source], fetch: FetchLimits, unpack: ArchiveLimits | None
) -> list[Source]:
    for source in line:
        before = downloads.known(batch, source.uri)
        found = _brought(batch, source, before, fetch, unpack)
        if fetch.stopped.is_set():
            break
        downloads.keep(batch, found)
    return line


def _brought(
    batch: Path,
    source: Source,
    before: Arrival | None,
    fetch: FetchLimits,
    unpack: ArchiveLimits | None,
) -> Arrival:
    folder = downloads.place(batch, source.uri)
    now = before or Arrival(source.uri, source.file_name)
    now = replace(now, file_name=source.file_name, declared=source.declared, failure=None)
    try:
        if not download.is_address(source.uri):
            stat = os.stat(source.uri)
            marks = {"": f"{stat.st_size} {stat.st_mtime_ns}"}
            return _unpacked(Path(source.uri), folder, now, marks, unpack)
        if archives.is_archive(name := download.name_of(source.uri)):
            # Kept out of sight, because what is unchanged there is known by what is here.
            hidden = folder / HIDDEN
            marks = download.fetch(source.uri, hidden, now.marks, limits=fetch)
            return _unpacked(hidden / name, folder, now, marks, unpack)
        marks = download.fetch(source.uri, folder, now.marks, limits=fetch)
        return replace(now, single=len(marks) == 1, marks=marks)
    except MediaError as error:
        failure = f"{error.got}; {error.hint}"
    except OSError as error:
        failure = f"unreachable: {error.strerror or type(error).__name__}; check disk and rights"
    return replace(now, failure=failure)


def _unpacked(
    archive: Path, folder: Path, now: Arrival, marks: dict[str, str], limits: ArchiveLimits | None
) -> Arrival:
    """Unpack what changed; what the archive no longer holds goes."""
    if now.marks == marks:
        return now
    written, refused = archives.unpack(archive, folder, limits=limits)
    for item in sorted(folder.rglob("*")):
        name = item.relative_to(folder)
        if item.is_file() and name.parts[0] != HIDDEN and str(name) not in written:
            atomic.remove(item)
    return replace(now, single=False, marks=marks, refused=refused)
