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

from pipeline.faces import video
from warehouse.errors import MediaError, SettingsError
from warehouse.ids import file_sha256, unreadable_video_id, video_id

SIDECAR = "videos.csv"
LISTING = "sources.jsonl"
_DECLARED = ("subject_id", "licence", "consent", "source")


@dataclass(frozen=True, order=True)
class Source:
    """One file to ingest.

    Attributes:
        file_name: what people call it: the name the sidecar uses.
        uri: where its bytes are.
        missing: a sidecar or listing names it, but no file is there.
    """

    file_name: str
    uri: str
    subject_id: str | None = None
    licence: str | None = None
    consent: str | None = None
    source: str | None = None
    missing: bool = False


def list_sources(folder: Path) -> list[Source]:
    """Every source of a batch folder, by name.

    Files lie in the folder or are named by ``sources.jsonl``; ``videos.csv`` adds what people
    know about them. A name without a file is listed too, as missing.

    Raises:
        SettingsError: the sidecar or the listing cannot be read.
    """
    declared = _sidecar(folder / SIDECAR)
    # By address, not by name: two folders may each hold a clip.mp4.
    found = {line["uri"]: Source(**line) for line in _listing(folder / LISTING)}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if not path.is_dir() and not _is_ours(path.name):
            uri = os.path.abspath(path)
            found.setdefault(uri, Source(path.name, uri=uri))
    named = {source.file_name for source in found.values()}
    for name in declared.keys() - named:
        uri = os.path.abspath(folder / name)
        found[uri] = Source(name, uri=uri)
    return sorted(
        _completed(source, declared.get(source.file_name, {})) for source in found.values()
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
        **dict.fromkeys(field.name for field in fields(video.VideoFacts)),
        "verdict": "failed",
    }
    row["licence"] = row["licence"] or "unknown"
    row["source"] = row["source"] or "local"
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
        return {**row, "reason": f"{error.got}; {error.mend}"}
    return {**row, **vars(facts), "verdict": "kept", "reason": None}


def _is_ours(name: str) -> bool:
    half_copied = name.lower().endswith((".part", ".partial", ".crdownload", ".filepart"))
    return name in (SIDECAR, LISTING) or name.startswith((".", "~$")) or half_copied


def _completed(source: Source, declared: dict[str, str]) -> Source:
    values = {name: declared.get(name) or getattr(source, name) for name in _DECLARED}
    # A link to nowhere is there, and cannot be read: another verdict than missing.
    return replace(source, **values, missing=not os.path.lexists(source.uri))


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
            mend=f"save {path} again as CSV, UTF-8",
        ) from None
    if "file_name" not in columns:
        raise SettingsError(
            f"a column file_name in {path.name}",
            got=f"columns {', '.join(columns) or 'none'}",
            mend="name the columns file_name, subject_id, licence, consent, source",
        )
    declared: dict[str, dict[str, str]] = {}
    for row in rows:
        name = (row["file_name"] or "").strip()
        values = {column: (row.get(column) or "").strip() for column in _DECLARED}
        if name and declared.setdefault(name, values) != values:
            raise SettingsError(
                f"one answer per file in {path.name}",
                got=f"two different rows for {name}",
                mend="remove one of them",
            )
    return declared


def _listing(path: Path) -> Iterator[dict[str, Any]]:
    if not os.path.lexists(path):
        return
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"{path.name} as UTF-8 text", got=str(error), mend=f"write {path} again"
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
                mend=f"mend or remove that line of {path}",
            ) from None


def _listed(line: dict[str, Any], *, folder: Path) -> dict[str, Any]:
    address = line["uri"]
    if not isinstance(address, str) or "://" in address or not address:
        raise ValueError(address)
    declared = {name: line.get(name) for name in _DECLARED}
    return {
        # Below the listing's folder when relative.
        "uri": os.path.abspath(folder / address),
        "file_name": str(line.get("file_name") or Path(address).name),
        **{name: None if value is None else str(value) for name, value in declared.items()},
    }
