"""The files of a batch and what is said beside them: who is seen, under which terms."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, fields
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
    found: dict[str, Source] = {}
    for line in _listing(folder / LISTING):
        found[line["file_name"]] = Source(**line)
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.is_dir() or path.name.startswith(".") or path.name in (SIDECAR, LISTING):
            continue
        found[path.name] = Source(file_name=path.name, uri=str(path.absolute()))
    for name in declared:
        found.setdefault(name, Source(file_name=name, uri=str((folder / name).absolute())))
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
        digest, size = file_sha256(source.uri), os.path.getsize(source.uri)
    except OSError as error:
        said = error.strerror or type(error).__name__
        return {**row, "reason": f"unreadable: {said}; check the file and its permissions"}
    row |= {"video_id": video_id(digest), "sha256": digest, "bytes": size}
    if size == 0:
        return {**row, "reason": "empty: the file has no bytes; copy it again"}
    try:
        facts = video.probe(source.uri)
    except MediaError as error:
        return {**row, "reason": f"{error.got}; {error.mend}"}
    return {**row, **vars(facts), "verdict": "kept", "reason": None}


def _completed(source: Source, declared: dict[str, str]) -> Source:
    values = {name: declared.get(name) or getattr(source, name) for name in _DECLARED}
    return Source(
        file_name=source.file_name,
        uri=source.uri,
        **values,
        missing=not os.path.lexists(source.uri),
    )


def _sidecar(path: Path) -> dict[str, dict[str, str]]:
    if not path.exists():
        return {}
    try:
        # utf-8-sig: spreadsheets write a mark before the first column's name.
        with open(path, newline="", encoding="utf-8-sig") as handle:
            rows = list(csv.DictReader(handle))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SettingsError(
            f"{path.name} as UTF-8 text with commas",
            got=f"{type(error).__name__}: {error}",
            mend=f"save {path} again as CSV, UTF-8",
        ) from None
    if rows and "file_name" not in rows[0]:
        raise SettingsError(
            f"a column file_name in {path.name}",
            got=f"columns {', '.join(str(name) for name in rows[0])}",
            mend="name the columns file_name, subject_id, licence, consent, source",
        )
    return {
        row["file_name"].strip(): {name: (row.get(name) or "").strip() for name in _DECLARED}
        for row in rows
        if (row["file_name"] or "").strip()
    }


def _listing(path: Path) -> Iterator[dict[str, Any]]:
    if not path.exists():
        return
    known = {field.name for field in fields(Source)} - {"missing"}
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            line = json.loads(text)
            yield {name: line.get(name) for name in known} | {
                "uri": str(line["uri"]),
                "file_name": str(line.get("file_name") or Path(line["uri"]).name),
            }
        except (ValueError, KeyError, TypeError, AttributeError):
            raise SettingsError(
                f'one JSON object with "uri" per line of {path.name}',
                got=f"line {number}: {text[:80]!r}",
                mend=f"mend or remove that line of {path}",
            ) from None
