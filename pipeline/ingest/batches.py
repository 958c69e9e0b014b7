"""From paths a person names to a batch in the inbox, and what became of it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.ingest import archive as archives
from pipeline.ingest import download, manifest
from pipeline.ingest.archive import ArchiveLimits
from pipeline.ingest.download import FetchLimits
from pipeline.ingest.manifest import Source
from warehouse.errors import MediaError, SettingsError
from warehouse.ids import batch_from, check_batch
from warehouse.storage import atomic, downloads, views
from warehouse.storage.downloads import HIDDEN, Download
from warehouse.storage.home import Home

if TYPE_CHECKING:
    from rich.console import Console

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
        before = downloads.read(batch, source.uri)
        found = _brought(batch, source, before, fetch, unpack)
        if fetch.stopped.is_set():
            break
        downloads.write(batch, found)
    return line


def _brought(
    batch: Path,
    source: Source,
    before: Download | None,
    fetch: FetchLimits,
    unpack: ArchiveLimits | None,
) -> Download:
    folder = downloads.folder_of(batch, source.uri)
    now = before or Download(source.uri, source.file_name)
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
    archive: Path, folder: Path, now: Download, marks: dict[str, str], limits: ArchiveLimits | None
) -> Download:
    """Unpack what changed; what the archive no longer holds goes."""
    if now.marks == marks:
        return now
    written, refused = archives.unpack(archive, folder, limits=limits)
    for item in sorted(folder.rglob("*")):
        name = item.relative_to(folder)
        if item.is_file() and name.parts[0] != HIDDEN and str(name) not in written:
            atomic.remove(item)
    return replace(now, single=False, marks=marks, refused=refused)


@dataclass(frozen=True)
class Summary:
    """What became of a batch.

    Attributes:
        stages: rows of (stage, verdict, reason code, count).
        mishaps: rows of (file, verdict, reason) for every video that gave no usable face.
    """

    batch: str
    stages: list[tuple[str, str, str | None, int]]
    mishaps: list[tuple[str, str, str]]

    @property
    def facts(self) -> dict[str, Any]:
        return {
            "batch": self.batch,
            "stages": [
                dict(zip(("stage", "verdict", "reason", "count"), row, strict=True))
                for row in self.stages
            ],
            "mishaps": [
                dict(zip(("file", "verdict", "reason"), row, strict=True)) for row in self.mishaps
            ],
        }

    def show(self, console: Console) -> None:
        from rich.markup import escape

        console.print(stage_table(self.stages))
        for file, verdict, reason in self.mishaps:
            console.print(f"  {verdict:<8} {escape(file)}: {escape(reason)}")


def stage_table(stages: Sequence[tuple[str, str, str | None, int]]) -> Any:
    """In, kept, dropped by reason, failed: one line per stage, as a rich table."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("stage")
    for column in ("in", "kept", "dropped", "failed"):
        table.add_column(column, justify="right")
    table.add_column("why", overflow="fold")
    for stage in dict.fromkeys(row[0] for row in stages):
        rows = [row for row in stages if row[0] == stage]
        count = {
            verdict: sum(row[3] for row in rows if row[1] == verdict) for _, verdict, *_ in rows
        }
        why = ", ".join(f"{reason} {n}" for _, verdict, reason, n in rows if verdict != "kept")
        cells = [str(count.get(verdict, 0)) for verdict in ("kept", "dropped", "failed")]
        table.add_row(stage, str(sum(row[3] for row in rows)), *cells, why)
    return table


def enlist(home: Home, paths: Sequence[str], *, batch: str | None = None) -> str:
    """Write the files below ``paths`` into ``inbox/<batch>/sources.jsonl``; return the batch.

    Files are named, not copied; what is behind an address or in an archive is fetched and
    unpacked into the batch when it is ingested. Enlisting the same file again changes nothing.

    Args:
        paths: files, folders, archives, and addresses (``https://…``, ``s3://…``).

    Raises:
        SettingsError: a path is not there, a sidecar cannot be read, or nothing that could be a
            video or image was found.
    """
    places = [_existing(path) for path in paths]
    name = check_batch(batch) if batch else batch_from(_name(places[0]))
    folder = home.inbox / name
    lines = {}
    listing = folder / "sources.jsonl"
    if listing.exists():
        for text in listing.read_text().splitlines():
            line = json.loads(text)
            lines[line["uri"]] = line
    for place in places:
        if isinstance(place, Path) and place == folder.resolve():
            continue
        for line in _lines(place):
            lines[line["uri"]] = line
    if not lines and not folder.is_dir():
        raise SettingsError(
            "at least one file to ingest",
            got=f"none below {', '.join(paths)}",
            hint="name a folder that holds videos or images",
        )
    if lines:
        ordered = [json.dumps(lines[uri], sort_keys=True) for uri in sorted(lines)]
        atomic.write_text(listing, "\n".join(ordered) + "\n")
    return name


def summary(home: Home, batch: str) -> Summary:
    """What became of every video and face of one batch."""
    connection = views.connect(home)
    stages = connection.execute(
        """SELECT * FROM (
             SELECT 'videos' AS stage, verdict, split_part(reason, ':', 1) AS reason, count(*) AS n
             FROM videos WHERE batch = $batch GROUP BY ALL
             UNION ALL
             SELECT 'faces', verdict, split_part(reason, ':', 1), count(*)
             FROM faces WHERE batch = $batch GROUP BY ALL
           ) ORDER BY stage DESC, verdict, n DESC, reason""",
        {"batch": batch},
    ).fetchall()
    mishaps = connection.execute(
        """SELECT split_part(uri, '/', -1), verdict, reason FROM videos
           WHERE batch = $batch AND verdict <> 'kept' ORDER BY verdict DESC, uri""",
        {"batch": batch},
    ).fetchall()
    return Summary(batch=batch, stages=stages, mishaps=mishaps)


def _existing(path: str) -> Path | str:
    if download.is_address(path):
        return path
    place = Path(path).expanduser()
    if not place.exists():
        raise SettingsError("a file or folder that is there", got=path, hint="check the path")
    return place.resolve()


def _name(place: Path | str) -> str:
    return place.name if isinstance(place, Path) else download.name_of(place)


def _lines(place: Path | str) -> Iterator[dict[str, Any]]:
    """One line per source; a folder is searched with everything below it."""
    if isinstance(place, str):
        yield {"uri": place, "file_name": download.name_of(place)}
        return
    only = place.name if place.is_file() else None
    for source in manifest.listed(place.parent if only else place, deep=not only):
        if only is None or source.file_name == only:
            yield {"uri": source.uri, "file_name": source.file_name, **source.declared}
