"""The files of a batch and what is said beside them: who is seen, under which terms."""

from __future__ import annotations

import csv
import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from pipeline.ingest import archive, download
from pipeline.video import reader as video
from warehouse.errors import MediaError, SettingsError
from warehouse.ids import file_sha256, unreadable_video_id, video_id
from warehouse.storage import downloads

SIDECAR = "videos.csv"
LISTING = "sources.jsonl"

_DECLARED = ("subject_id", "licence", "consent", "source")


@dataclass(frozen=True, order=True)
class Source:
    """One file to ingest.

    Attributes:
        file_name: what people call it: the name the sidecar uses, below its folder.
        uri: where its bytes are: a path, or what has not arrived yet (see ``arriving``).
        missing: a sidecar or listing names it, but no file is there.
        failure: why there is no file, as a reason; None where there is one, or should be.
    """

    file_name: str
    uri: str
    subject_id: str | None = None
    licence: str | None = None
    consent: str | None = None
    source: str | None = None
    missing: bool = False
    failure: str | None = None

    @property
    def declared(self) -> dict[str, str | None]:
        """What was said of it."""
        return {name: getattr(self, name) for name in _DECLARED}


def list_sources(folder: Path, *, deep: bool = True) -> list[Source]:
    """Every source of a batch folder, by name.

    Files lie in the folder and those below it, or are named by ``sources.jsonl``; a
    ``videos.csv`` adds what people know about the files of its folder. A name without a file is
    listed too, as missing. Archives and addresses are listed as what came out of them; one that
    was not brought in yet (``arriving.bring``) as itself. Transcripts beside a video are none.

    Args:
        deep: look into folders too.

    Raises:
        SettingsError: a sidecar or the listing cannot be read.
    """
    return sorted([*brought(folder), *(one for one in listed(folder, deep=deep)
                                       if downloads.read(folder, one.uri) is None)])  # fmt: skip


def listed(folder: Path, *, deep: bool = True, trusted: bool = True) -> list[Source]:
    """``list_sources`` before anything arrived: archives and addresses as themselves.

    Args:
        trusted: a person of this house filled the folder. Else its files may name no others.
    """
    # By address, not by name: two folders may each hold a clip.mp4.
    lines = _listing(folder / LISTING) if trusted else ()
    found = {line["uri"]: Source(**line) for line in lines}
    for inner in _folders(folder) if deep else [folder]:
        for path in _files(inner):
            uri = os.path.abspath(path)
            found.setdefault(uri, Source(str(path.relative_to(folder)), uri=uri))
    return [
        source
        for source in _told(found, folder, deep=deep)
        if trusted or Path(source.uri).is_relative_to(os.path.abspath(folder))
    ]


def brought(batch: Path) -> Iterator[Source]:
    """What arrived in a batch, file by file, and what did not, with the reason."""
    for folder, arrival in downloads.list_all(batch):
        origin = downloads.redact_url(arrival.origin or arrival.file_name)
        declared: dict[str, Any] = {
            **arrival.declared,
            "source": arrival.declared.get("source") or origin,
        }
        for inner in listed(folder, trusted=False):
            own: dict[str, Any] = {
                name: value or declared.get(name) for name, value in inner.declared.items()
            }
            if arrives(inner):
                inner = replace(inner, failure="nested_archive: ingest it by its own address")
            name = f"{arrival.file_name}/{inner.file_name}"
            yield replace(inner, file_name=arrival.file_name if arrival.single else name, **own)
        if arrival.failure:
            yield Source(arrival.file_name, uri=origin, failure=arrival.failure, **declared)
        for entry, reason in sorted(arrival.refused.items()):
            uri = f"{origin}!/{entry}"
            yield Source(f"{arrival.file_name}/{entry}", uri=uri, failure=reason, **declared)


def settled(batch: Path, uri: str) -> bool:
    """Whether ``uri`` stands for something that did not arrive, and has come to terms since."""
    names = {downloads.redact_url(one.origin) for _, one in downloads.list_all(batch) if one.origin}
    return uri.split("!/")[0] in names


def arrives(source: Source) -> bool:
    """Whether a source must be fetched or unpacked first."""
    if source.failure is not None:
        return False
    return download.is_address(source.uri) or (
        archive.is_archive(source.uri) and not source.missing and os.path.isfile(source.uri)
    )


def describe(source: Source, *, batch: str) -> dict[str, Any]:
    """One whole row of the table ``videos``; whatever is wrong with the file becomes its verdict.

    A reason reads ``code: sentence``; the codes are ``missing``, ``unreadable``, ``empty`` and
    those of ``video.probe``.
    """
    row: dict[str, Any] = {
        "video_id": unreadable_video_id(source.uri),
        "uri": source.uri,
        "batch": batch,
        "sha256": None,
        "bytes": None,
        **{name: getattr(source, name) for name in _DECLARED},
        **dict.fromkeys(field.name for field in fields(video.VideoInfo)),
        "verdict": "failed",
    }
    row["licence"] = row["licence"] or "unknown"
    row["source"] = row["source"] or "local"
    if source.failure:
        return {**row, "reason": source.failure}
    if arrives(source):
        return {**row, "reason": "unreachable: it was not brought in yet; ingest the batch again"}
    if source.missing:
        return {**row, "reason": "missing: the list names this file, but it is not there; copy it"}
    try:
        if not stat.S_ISREG(os.stat(source.uri).st_mode):
            return {**row, "reason": "unreadable: it is no file; name the files one by one"}
        digest, size = file_sha256(source.uri), os.path.getsize(source.uri)
    except OSError as error:
        said = error.strerror or type(error).__name__
        return {**row, "reason": f"unreadable: {said}; check the file and its permissions"}
    if size == 0:
        return {**row, "bytes": 0, "reason": "empty: the file has no bytes; copy it again"}
    row |= {"video_id": video_id(digest), "sha256": digest, "bytes": size}
    try:
        facts = video.probe(source.uri)
    except MediaError as error:
        return {**row, "reason": f"{error.got}; {error.hint}"}
    return {**row, **vars(facts), "verdict": "kept", "reason": None}


def _is_ours(name: str) -> bool:
    half_copied = name.lower().endswith((".part", ".partial", ".crdownload", ".filepart"))
    return name in (SIDECAR, LISTING) or name.startswith((".", "~$")) or half_copied


def _folders(top: Path) -> Iterator[Path]:
    """A folder and those below it, without hidden ones and what arrived."""
    yield top
    for path in sorted(top.rglob("*")) if top.is_dir() else []:
        parts = path.relative_to(top).parts
        if path.is_dir() and parts[0] != downloads.FOLDER and not any(p[0] == "." for p in parts):
            yield path


def _files(folder: Path) -> list[Path]:
    inside = sorted(folder.iterdir()) if folder.is_dir() else []
    files = [path for path in inside if not path.is_dir() and not _is_ours(path.name)]
    spoken = {path for path in files if path.suffix.lower() in downloads.TRANSCRIPTS}
    told = {name for path in files if path not in spoken for name in (path.stem, path.name)}
    return [path for path in files if not (path in spoken and path.stem in told)]


def _told(found: dict[str, Source], folder: Path, *, deep: bool) -> list[Source]:
    """Sources with what the sidecars say of them, and those that only a sidecar knows."""
    said: dict[str, dict[str, str]] = {}
    for inner in _folders(folder) if deep else [folder]:
        below = inner.relative_to(folder)
        for name, values in _sidecar(inner / SIDECAR).items():
            said[str(below / name)] = values
    named = {source.file_name for source in found.values()}
    for name in said.keys() - named:
        uri = os.path.abspath(folder / name)
        if uri in found:
            said[found[uri].file_name] = said[name]
        else:
            found[uri] = Source(name, uri=uri)
    return sorted(_completed(source, said.get(source.file_name, {})) for source in found.values())


def _completed(source: Source, declared: dict[str, str]) -> Source:
    values = {name: declared.get(name) or getattr(source, name) for name in _DECLARED}
    # A link to nowhere is there, and cannot be read: another verdict than missing.
    gone = not download.is_address(source.uri) and not os.path.lexists(source.uri)
    return replace(source, **values, missing=gone)


def _sidecar(path: Path) -> dict[str, dict[str, str]]:
    if not os.path.lexists(path):
        return {}
    try:
        # utf-8-sig: spreadsheets write a mark before the first column's name.
        with open(path, newline="", encoding="utf-8-sig") as handle:
            reader = csv.DictReader(handle)
            columns, rows = reader.fieldnames or [], list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SettingsError(
            f"{path.name} as UTF-8 text with commas",
            got=f"{type(error).__name__}: {error}",
            hint=f"save {path} again as CSV, UTF-8",
        ) from None
    if "file_name" not in columns:
        raise SettingsError(
            f"a column file_name in {path.name}",
            got=f"columns {', '.join(columns) or 'none'}",
            hint="name the columns file_name, subject_id, licence, consent, source",
        )
    declared: dict[str, dict[str, str]] = {}
    for row in rows:
        name = (row["file_name"] or "").strip()
        values = {column: (row.get(column) or "").strip() for column in _DECLARED}
        if name and declared.setdefault(name, values) != values:
            raise SettingsError(
                f"one answer per file in {path.name}",
                got=f"two different rows for {name}",
                hint="remove one of them",
            )
    return declared


def _listing(path: Path) -> Iterator[dict[str, Any]]:
    if not os.path.lexists(path):
        return
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"{path.name} as UTF-8 text", got=str(error), hint=f"write {path} again"
        ) from None
    for number, text in enumerate(lines, start=1):
        if not text.strip():
            continue
        try:
            yield _listed(json.loads(text), folder=path.parent)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise SettingsError(
                f'one JSON object with "uri" per line of {path.name}',
                got=f"line {number}: {text[:80]!r}",
                hint=f"mend or remove that line of {path}",
            ) from None


def _listed(line: dict[str, Any], *, folder: Path) -> dict[str, Any]:
    address = line["uri"]
    if not isinstance(address, str) or not address:
        raise ValueError(address)
    remote = download.is_address(address)
    declared = {name: line.get(name) for name in _DECLARED}
    return {
        # Below the listing's folder when relative.
        "uri": address if remote else os.path.abspath(folder / address),
        "file_name": str(
            line.get("file_name") or (download.name_of(address) if remote else Path(address).name)
        ),
        **{name: None if value is None else str(value) for name, value in declared.items()},
    }
