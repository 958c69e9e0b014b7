"""List the files of a batch with the facts declared about them.

A batch folder holds files, or names them in ``sources.jsonl``. ``videos.csv`` declares subject,
licence, consent and source of the files of its folder.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from pipeline.ingest import archive, download, names
from pipeline.video import reader as video
from warehouse import sidecar
from warehouse.errors import MediaError, SettingsError
from warehouse.ids import file_sha256, sha256_of, unreadable_video_id, video_id
from warehouse.masking import public_url
from warehouse.storage import downloads
from warehouse.terms_of_copies import strictest_terms

SIDECAR = "videos.csv"
LISTING = "sources.jsonl"

_DECLARED = ("subject_id", "licence", "consent", "source")
_PROPERTIES = tuple(one.name for one in fields(video.VideoInfo) if one.name != "note")


@dataclass(frozen=True, order=True)
class Source:
    """One file to ingest.

    Attributes:
        file_name: path below the batch folder, as the sidecar names the file.
        uri: path, or the address or archive that still has to be fetched.
        missing: a sidecar or listing names the file, but it does not exist.
        failure: why a download gave no file, as a reason; else None.
        facts: columns ``sidecar.FACT_COLUMNS`` of its row, and their values.
    """

    file_name: str
    uri: str
    subject_id: str | None = None
    licence: str | None = None
    consent: str | None = None
    source: str | None = None
    missing: bool = False
    failure: str | None = None
    facts: tuple[tuple[str, str], ...] = ()

    @property
    def declared(self) -> dict[str, str | None]:
        """The declared facts by column name."""
        return {name: getattr(self, name) for name in _DECLARED}


def list_sources(folder: Path) -> list[Source]:
    """List every source of a batch folder, sorted by name.

    Includes files of folders below, files that ``sources.jsonl`` names, and, as missing, names
    without a file. An archive or address is replaced by the files that came out of it; one that
    was not fetched yet (``batches.materialize``) is listed as itself. A transcript, segments and
    sensors beside a video are no sources.

    Raises:
        SettingsError: a sidecar or the listing cannot be read.
    """
    own = [one for one in list_origins(folder) if downloads.read(folder, one.uri) is None]
    return sorted([*_downloaded(folder), *own])


def list_origins(folder: Path, *, deep: bool = True, trusted: bool = True) -> list[Source]:
    """List the sources of a folder with archives and addresses as themselves.

    A name that is no text, and a link to a folder, is a source that failed.

    Args:
        deep: include folders below.
        trusted: a local user filled the folder. Otherwise its sidecars may name files of this
            folder only.
    """
    return [_readable(source) for source in list_named(folder, deep=deep, trusted=trusted)]


def list_named(folder: Path, *, deep: bool = True, trusted: bool = True) -> list[Source]:
    """List sources as ``list_origins``, whatever their names are."""
    # By address, not by name: two folders may each hold a clip.mp4.
    found: dict[str, Source] = {}
    for line in _read_listing(folder / LISTING) if trusted else ():
        twice = found.get(line["uri"])
        found[line["uri"]] = _completed(twice, line) if twice else Source(**line)
    for inner in _folders(folder) if deep else [folder]:
        for path in _files(inner):
            uri = os.path.abspath(path)
            found.setdefault(uri, Source(str(path.relative_to(folder)), uri=uri))
    return [
        source
        for source in _with_declared(found, folder, deep=deep)
        if trusted or Path(source.uri).is_relative_to(os.path.abspath(folder))
    ]


def is_resolved(batch: Path, uri: str) -> bool:
    """Return whether ``uri`` names a failed download that has succeeded since."""
    names = {downloads.redact_url(one.origin) for _, one in downloads.list_all(batch) if one.origin}
    return uri.split("!/")[0] in names


def needs_download(source: Source) -> bool:
    """Return whether a source must first be fetched or unpacked."""
    if source.failure is not None:
        return False
    return download.is_address(source.uri) or (
        archive.is_archive(source.uri) and not source.missing and os.path.isfile(source.uri)
    )


def describe(source: Source, *, batch: str) -> dict[str, Any]:
    """Return the row of the table ``videos`` for a source.

    Never raises for a bad file: the row is ``failed`` with a reason ``code: sentence``. The codes
    are ``missing``, ``unreadable``, ``empty``, ``unreachable`` and those of ``video.probe``.
    """
    row: dict[str, Any] = {
        "video_id": unreadable_video_id(source.uri),
        "uri": source.uri,
        "batch": batch,
        "sha256": None,
        "bytes": None,
        **source.declared,
        **dict.fromkeys(_PROPERTIES),
        "verdict": "failed",
    }
    row["licence"] = row["licence"] or "unknown"
    # A user may paste an address with its login into a sidecar.
    row["source"] = re.sub(r"\S+://\S+", lambda one: public_url(one[0]), row["source"] or "local")
    if source.failure:
        return {**row, "reason": source.failure}
    if needs_download(source):
        return {**row, "reason": "unreachable: it was not fetched yet; ingest the batch again"}
    if source.missing:
        return {**row, "reason": "missing: the list names this file, but it is not there; copy it"}
    try:
        if not stat.S_ISREG(os.stat(source.uri).st_mode):
            return {**row, "reason": "unreadable: it is no file; name the files one by one"}
        digest, size = file_sha256(source.uri), os.path.getsize(source.uri)
    except OSError as error:
        problem = error.strerror or type(error).__name__
        return {**row, "reason": f"unreadable: {problem}; check the file and its permissions"}
    if size == 0:
        return {**row, "bytes": 0, "reason": "empty: the file has no bytes; copy it again"}
    row |= {"video_id": video_id(digest), "sha256": digest, "bytes": size}
    try:
        facts = video.probe(source.uri)
    except MediaError as error:
        return {**row, "reason": f"{error.got}; {error.hint}"}
    found = {name: getattr(facts, name) for name in _PROPERTIES}
    return {**row, **found, "verdict": "kept", "reason": facts.note}


def part_of(row: dict[str, Any]) -> str:
    """Return the part name of a row other than the kept row of its video."""
    return f"{row['video_id']}.{sha256_of([row['uri'].encode()])[:8]}"


def _downloaded(batch: Path) -> Iterator[Source]:
    """Yield downloaded files, and failed downloads with their reasons."""
    for folder, origin in downloads.list_all(batch):
        address = downloads.redact_url(origin.origin or origin.file_name)
        declared: dict[str, Any] = {
            **origin.declared,
            "source": origin.declared.get("source") or address,
        }
        for inner in list_origins(folder, trusted=False):
            own: dict[str, Any] = {
                name: value or declared.get(name) for name, value in inner.declared.items()
            }
            if needs_download(inner):
                inner = replace(inner, failure="nested_archive: ingest it by its own address")
            name = f"{origin.file_name}/{inner.file_name}"
            yield replace(inner, file_name=origin.file_name if origin.single else name, **own)
        if origin.failure:
            yield Source(origin.file_name, uri=address, failure=origin.failure, **declared)
        for entry, reason in sorted(origin.refused.items()):
            uri = f"{address}!/{entry}"
            yield Source(f"{origin.file_name}/{entry}", uri=uri, failure=reason, **declared)


def _readable(source: Source) -> Source:
    """Return a source that tables can hold, failed if its name is no text."""
    texts: dict[str, Any] = {
        name: names.escaped(value)
        for name, value in asdict(source).items()
        if isinstance(value, str) and name != "failure"
    }
    failure = source.failure or names.problem_of(source.uri)
    return replace(source, **texts, failure=failure and names.escaped(failure))


def _is_ignored(name: str) -> bool:
    half_copied = name.lower().endswith((".part", ".partial", ".crdownload", ".filepart"))
    return name in (SIDECAR, LISTING) or name.startswith((".", "~$")) or half_copied


def _folders(top: Path) -> Iterator[Path]:
    """Yield a folder and those below it, without hidden ones and downloads."""
    yield top
    for path in sorted(top.rglob("*")) if top.is_dir() else []:
        parts = path.relative_to(top).parts
        if (
            path.is_dir()
            and not path.is_symlink()
            and parts[0] != downloads.FOLDER
            and not any(p[0] == "." for p in parts)
        ):
            yield path


def _files(folder: Path) -> list[Path]:
    inside = sorted(folder.iterdir()) if folder.is_dir() else []
    # A link to a folder counts as a file, which is then reported.
    files = [
        path
        for path in inside
        if (path.is_symlink() or not path.is_dir()) and not _is_ignored(path.name)
    ]
    transcripts = {path for path in files if path.suffix.lower() in downloads.TRANSCRIPTS}
    others = {name for path in files if path not in transcripts for name in (path.stem, path.name)}
    return [
        path
        for path in files
        if not (
            (path in transcripts and path.stem in others)
            or sidecar.owner_of(path.name) in others
            or sidecar.is_of_segments(path.name)
        )
    ]


def _with_declared(found: dict[str, Source], folder: Path, *, deep: bool) -> list[Source]:
    """Add what sidecars declare, and the files that only a sidecar names."""
    declared: dict[str, dict[str, str]] = {}
    for inner in _folders(folder) if deep else [folder]:
        below = inner.relative_to(folder)
        for name, values in _read_sidecar(inner / SIDECAR)[0].items():
            # The sidecar of a folder above may speak of the same file.
            _declare(declared, str(below / name), values)
    by_name = {source.file_name: source for source in found.values()}
    absent = [
        name for name in declared
        if name not in by_name and os.path.abspath(folder / name) not in found
    ]  # fmt: skip
    spelt, similar = names.pair(absent, by_name)
    for name in sorted(declared.keys() - by_name):
        uri = os.path.abspath(folder / name)
        if uri in found:
            _declare(declared, found[uri].file_name, declared[name])
        elif name in spelt:
            _declare(declared, spelt[name], declared[name])
        else:
            found[uri] = Source(name, uri=uri, failure=_absent(name, similar.get(name)))
    return sorted(
        _completed(source, declared.get(source.file_name, {})) for source in found.values()
    )


def _declare(declared: dict[str, dict[str, str]], name: str, values: dict[str, str]) -> None:
    """Add facts given under another spelling; the strictest terms count."""
    before = {key: value for key, value in declared.get(name, {}).items() if value}
    declared[name] = {**values, **before, **strictest_terms(before, values)}


def _absent(name: str, similar: str | None) -> str | None:
    """Return the reason of a listed name without a file, if special."""
    if os.path.isabs(name) or ".." in Path(name).parts:
        return f"outside: {names.escaped(name)} leaves the batch; name files below its folder"
    if similar is None:
        return None
    return (
        "missing: the list names this file, but it is not there; did you mean "
        f"{names.escaped(similar)}?"
    )


def _completed(source: Source, declared: dict[str, str]) -> Source:
    """Return a source with declared facts; the strictest terms count."""
    values = {name: declared.get(name) or getattr(source, name) for name in _DECLARED}
    values |= strictest_terms(source.declared, declared)
    # lexists: a dangling link exists but cannot be read, which is another verdict than missing.
    missing = not download.is_address(source.uri) and not os.path.lexists(source.uri)
    facts = {name: value for name, value in declared.items() if name in sidecar.FACT_COLUMNS}
    return replace(source, **values, missing=missing, facts=tuple(sorted(facts.items())))


def notes(folder: Path, *, deep: bool = True) -> list[str]:
    """Return remarks on how the sidecars of a folder were read."""
    inside = _folders(folder) if deep else [folder]
    return [note for inner in inside for note in _read_sidecar(inner / SIDECAR)[1]]


def _read_sidecar(path: Path) -> tuple[dict[str, dict[str, str]], list[str]]:
    """Return what a sidecar declares by file, and remarks on how it was read."""
    if not os.path.lexists(path):
        _check_spelling(path)
        return {}, []
    table = sidecar.read_csv(path, {**sidecar.VIDEO_COLUMNS, **sidecar.FACT_COLUMNS})
    if "file_name" not in table.columns:
        raise SettingsError(
            f"{path.name} lacks a column file_name",
            got="; ".join(table.notes) or "no column of ours",
            hint="name the columns file_name, subject_id, licence, consent, source",
        )
    declared: dict[str, dict[str, str]] = {}
    for row in table.rows:
        name = row.get("file_name", "")
        values = {column: row.get(column, "") for column in _DECLARED}
        values |= {column: row[column] for column in sidecar.FACT_COLUMNS if row.get(column)}
        if name and declared.setdefault(name, values) != values:
            raise SettingsError(
                f"{path.name} contradicts itself",
                got=f"two different rows for {name}",
                hint="remove one of them",
            )
    return declared, table.notes


def check_listing(folder: Path) -> None:
    """Check that a folder's own listing names no file outside it.

    Raises:
        SettingsError: it names another file. The folder may come from another person, who must
            not choose which files of this machine are ingested.
    """
    for line in _read_listing(folder / LISTING):
        uri = line["uri"]
        if not download.is_address(uri) and not Path(uri).is_relative_to(folder):
            raise SettingsError(
                f"A line of {LISTING} names a file outside its folder",
                got=names.escaped(uri),
                hint=f"ingest that file by its own path, or remove the line of {folder / LISTING}",
            )


def _check_spelling(path: Path) -> None:
    """Raise a ``SettingsError`` if the sidecar is there with other capitals."""
    folder = path.parent
    for name in os.listdir(folder) if folder.is_dir() else ():
        if name != path.name and name.casefold() == path.name:
            raise SettingsError(
                f"A list is not read under the name {names.escaped(name)}",
                got=names.escaped(str(folder / name)),
                hint=f"rename it {path.name}",
            )


def _read_listing(path: Path) -> Iterator[dict[str, Any]]:
    if not os.path.lexists(path):
        return
    try:
        lines = sidecar.read_bytes(path).decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise SettingsError(
            f"{path.name} is not UTF-8 text", got=str(error), hint=f"write {path} again"
        ) from None
    for number, text in enumerate(lines, start=1):
        if not text.strip():
            continue
        try:
            yield _parse_line(json.loads(text), folder=path.parent)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise SettingsError(
                f'A line of {path.name} is not a JSON object with "uri"',
                got=f"line {number}: {text[:80]!r}",
                hint=f"fix or remove that line of {path}",
            ) from None


def _parse_line(line: dict[str, Any], *, folder: Path) -> dict[str, Any]:
    address = line["uri"]
    if not isinstance(address, str) or not address:
        raise ValueError(address)
    remote = download.is_address(address)
    declared = {name: line.get(name) for name in _DECLARED}
    return {
        # A relative path starts at the listing's folder.
        "uri": address if remote else os.path.abspath(folder / address),
        "file_name": str(
            line.get("file_name") or (download.name_of(address) if remote else Path(address).name)
        ),
        **{name: None if value is None else str(value) for name, value in declared.items()},
    }
