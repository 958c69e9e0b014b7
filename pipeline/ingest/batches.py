"""Create batches, materialize their downloads, summarize outcomes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from pipeline.ingest import archive, download, facts, manifest, names
from pipeline.ingest.archive import ArchiveLimits
from pipeline.ingest.download import FetchLimits
from pipeline.ingest.manifest import Source
from warehouse import consent, terms_of_copies
from warehouse.errors import MediaError, SettingsError
from warehouse.ids import batch_from, check_batch
from warehouse.masking import public_url
from warehouse.storage import atomic, downloads, tables, views
from warehouse.storage.downloads import HIDDEN, Download
from warehouse.storage.home import Home

if TYPE_CHECKING:
    from rich.console import Console

_SHOWN = 5
_REPORTED = "reported"
"""Key of a line whose file cannot be ingested under its name."""

Stage = tuple[str, str, str | None, int]
"""Stage, verdict, reason code, count."""


@dataclass(frozen=True)
class Summary:
    """Outcome of a batch.

    Attributes:
        stages: counts per stage, verdict and reason code.
        problems: (file, verdict, reason) of every video without a usable face, and of those
            with one that were read in part or not as they are.
        notes: columns that were not read, and statements of consent that are not understood.
    """

    batch: str
    stages: list[Stage]
    problems: list[tuple[str, str, str]]
    notes: list[str] = field(default_factory=list)

    @property
    def facts(self) -> dict[str, Any]:
        """The summary as a JSON document."""
        return {
            "batch": self.batch,
            "stages": [
                dict(zip(("stage", "verdict", "reason", "count"), row, strict=True))
                for row in self.stages
            ],
            "mishaps": [
                dict(zip(("file", "verdict", "reason"), row, strict=True)) for row in self.problems
            ],
            "notes": self.notes,
        }

    def show(self, console: Console) -> None:
        """Print the summary for people."""
        from rich.markup import escape

        console.print(stage_table(self.stages))
        for file, verdict, reason in self.problems:
            console.print(f"  {verdict:<8} {escape(file)}: {escape(reason)}")
        for note in self.notes:
            console.print(f"  {escape(note)}")


def stage_table(stages: Sequence[Stage]) -> Any:
    """Return a rich table: per stage in, kept, dropped, failed, reasons."""
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


def create(home: Home, paths: Sequence[str], *, batch: str | None = None) -> str:
    """List the files below ``paths`` in ``inbox/<batch>/sources.jsonl``.

    Files are referenced, not copied. Addresses and archives are fetched and unpacked when the
    batch is registered. Adding the same file again changes nothing.

    Args:
        paths: files, folders, archives, and addresses (``https://…``, ``s3://…``).
        batch: name; default: the name of the first path.

    Returns:
        The name of the batch.

    Raises:
        SettingsError: a path does not exist, a sidecar cannot be read, there is no file, or two
            addresses differ in what is not stored: login, token or signature.
    """
    places = [_existing(path) for path in paths]
    _check_addresses([place for place in places if isinstance(place, str)])
    first = places[0]
    default = first.name if isinstance(first, Path) else download.name_of(first)
    name = check_batch(batch) if batch else batch_from(default)
    folder = home.inbox / name
    listing = folder / manifest.LISTING
    texts = names.json_lines(listing.read_text()) if listing.exists() else []
    lines = {line["uri"]: line for line in map(json.loads, texts) if not _is_renamed(line)}
    for place in places:
        if isinstance(place, Path) and place == folder.resolve():
            continue
        if isinstance(place, Path) and not place.is_relative_to(home.inbox.resolve()):
            manifest.check_listing(place if place.is_dir() else place.parent)
        # An earlier version stored the address with its login: its files belong to that line.
        stored = {public_url(uri) for uri in lines if uri != public_url(uri)}
        lines |= {line["uri"]: line for line in _lines(place) if line["uri"] not in stored}
    if not lines and not folder.is_dir():
        raise SettingsError(
            "There is no file to ingest",
            got=f"none below {', '.join(paths)}",
            hint="name a folder that holds videos or images",
        )
    if lines:
        ordered = [json.dumps(lines[uri], sort_keys=True) for uri in sorted(lines)]
        atomic.write_text(listing, "\n".join(ordered) + "\n")
    return name


def summary(home: Home, batch: str) -> Summary:
    """Count the verdicts of the videos and faces of a batch."""
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
    problems = connection.execute(
        """SELECT split_part(uri, '/', -1), verdict, reason FROM videos
           WHERE batch = $batch AND (verdict <> 'kept' OR reason IS NOT NULL)
           ORDER BY verdict DESC, uri""",
        {"batch": batch},
    ).fetchall()
    return Summary(batch=batch, stages=stages, problems=problems, notes=_notes(home, batch))


def _notes(home: Home, batch: str) -> list[str]:
    """Return what was said of the files of a batch and was not understood."""
    videos = tables.read(home, "videos", batch=batch)
    notes: dict[str, None] = {}
    # The folder of an imported dataset is described by its metadata, not by videos.csv.
    ingested = videos.filter(pl.col("source").fill_null("") != "imported")["uri"]
    for folder in sorted({Path(uri).parent for uri in ingested} | {home.inbox / batch}):
        notes |= dict.fromkeys(manifest.notes(folder, deep=False))
    notes |= dict.fromkeys(facts.left_out(home, batch))
    stated = videos.sort("uri").select("uri", "consent").iter_rows()
    unreadable = consent.unreadable((Path(uri).name, said) for uri, said in stated)
    for said, files in sorted(unreadable.items()):
        shown = ", ".join(files[:_SHOWN]) + (", …" if len(files) > _SHOWN else "")
        notes[f"consent {said!r} is not understood: {shown} stay out of releases; write yes, no, "
              "or the last day on which it holds"] = None  # fmt: skip
    copies = terms_of_copies.contradictions(home).filter(pl.col("batches").list.contains(batch))
    for files, consents, licences in copies.select("files", "consents", "licences").iter_rows():
        notes[f"copies with other terms: {', '.join(files)} hold the same bytes; consent "
              f"{' and '.join(map(repr, consents)) or 'not stated'}, licence "
              f"{' and '.join(licences) or 'not stated'}: the strictest counts"] = None  # fmt: skip
    return list(notes)


def materialize(
    folder: Path,
    *,
    fetch: FetchLimits | None = None,
    unpack: ArchiveLimits | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> int:
    """Fetch the addresses and unpack the archives that a batch folder lists.

    What is unchanged at its origin is skipped. A source that cannot be fetched keeps its earlier
    files and is listed with a reason; the others continue.

    Returns:
        Number of addresses and archives.

    Raises:
        SettingsError: a sidecar or the listing cannot be read.
    """
    wanted = [one for one in manifest.list_origins(folder) if manifest.needs_download(one)]
    fetch = fetch or FetchLimits()
    # Sources with the same address share a folder, so they are fetched one after another.
    groups: dict[str, list[Source]] = {}
    for source in wanted:
        groups.setdefault(source.uri, []).append(source)
    number = 0
    with ThreadPoolExecutor(fetch.at_once) as pool:
        work = [
            pool.submit(_fetch_group, folder, group, fetch, unpack) for group in groups.values()
        ]
        try:
            for future in as_completed(work):
                for source in future.result():
                    number += 1
                    if progress:
                        progress(source.file_name, number, len(wanted))
        except BaseException:
            # Ctrl-C: complete files stay, partial ones resume next time.
            fetch.stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return len(wanted)


def _existing(path: str) -> Path | str:
    if download.is_address(path):
        return path
    place = Path(path).expanduser()
    if not place.exists():
        raise SettingsError("The file or folder does not exist", got=path, hint="check the path")
    return place.resolve()


def _check_addresses(addresses: Sequence[str]) -> None:
    """Refuse different addresses that would be stored as one."""
    by_public: dict[str, set[str]] = {}
    for address in addresses:
        by_public.setdefault(public_url(address), set()).add(address)
    for public, given in by_public.items():
        if len(given) > 1:
            raise SettingsError(
                "Addresses differ in nothing but login, token or signature, which is not stored",
                got=f"{len(given)} times {public}",
                hint="ingest them one after the other, each with its own --batch",
            )


def _lines(place: Path | str) -> Iterator[dict[str, Any]]:
    """Yield one line of the listing per source at or below a path or address."""
    if isinstance(place, str):
        yield {"uri": downloads.keep_login(place), "file_name": download.name_of(place)}
        return
    only = place.name if place.is_file() else None
    for source in manifest.list_named(place.parent if only else place, deep=not only):
        if only is None or source.file_name == only:
            line = {"uri": source.uri, "file_name": source.file_name, **source.declared}
            yield {**line, _REPORTED: True} if names.problem_of(source.uri) else line


def _is_renamed(line: dict[str, Any]) -> bool:
    """Return whether a line names a bad name or a link that is gone."""
    return _REPORTED in line and not os.path.lexists(line["uri"])


def _fetch_group(
    folder: Path, group: list[Source], fetch: FetchLimits, unpack: ArchiveLimits | None
) -> list[Source]:
    for source in group:
        found = _fetch_one(folder, source, fetch, unpack)
        if fetch.stopped.is_set():
            break
        downloads.write(folder, found)
    return group


def _fetch_one(
    batch: Path, source: Source, fetch: FetchLimits, unpack: ArchiveLimits | None
) -> Download:
    folder, address = downloads.folder_of(batch, source.uri), downloads.with_login(source.uri)
    now = downloads.read(batch, source.uri) or Download(source.uri, source.file_name)
    now = replace(now, file_name=source.file_name, declared=source.declared, failure=None)
    try:
        if not download.is_address(source.uri):
            stat = os.stat(source.uri)
            state = {"": f"{stat.st_size} {stat.st_mtime_ns}"}
            return _unpack(Path(source.uri), folder, now, state, unpack)
        if archive.is_archive(name := download.name_of(source.uri)):
            # Keep the archive itself, hidden: whether it changed is known from this copy.
            hidden = folder / HIDDEN
            etags = download.fetch(address, hidden, now.marks, limits=fetch)
            return _unpack(hidden / name, folder, now, etags, unpack)
        etags = download.fetch(address, folder, now.marks, limits=fetch)
        return replace(now, single=len(etags) == 1, marks=etags)
    except MediaError as error:
        failure = f"{error.got}; {error.hint}"
    except OSError as error:
        failure = f"unreachable: {error.strerror or type(error).__name__}; check disk and rights"
    return replace(now, failure=failure)


def _unpack(
    path: Path, folder: Path, now: Download, etags: dict[str, str], limits: ArchiveLimits | None
) -> Download:
    """Unpack an archive if it changed; remove files that it no longer holds."""
    if now.marks == etags:
        return now
    written, refused = archive.unpack(path, folder, limits=limits)
    for item in sorted(folder.rglob("*")):
        name = item.relative_to(folder)
        if item.is_file() and name.parts[0] != HIDDEN and str(name) not in written:
            atomic.remove(item)
    return replace(now, single=False, marks=etags, refused=refused)
