"""Erase a data subject's files from the inbox, or report why one stays."""

from __future__ import annotations

import csv
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from warehouse.ids import file_sha256, unreadable_video_id, video_id
from warehouse.masking import public_url
from warehouse.privacy.data_subject import DataSubject, local_path
from warehouse.storage import atomic, downloads, tables
from warehouse.storage.home import Home

_SIDECAR, _LISTING = "videos.csv", "sources.jsonl"


@dataclass
class InboxErasure:
    """Result of erasing a data subject's files from the inbox.

    Attributes:
        removed: number of files deleted.
        left: ``<where>: <why>`` for data outside the home, which is not deleted.
        stays: ``<path>: <why>`` for files of the inbox that may hold data of others too.
        kept: sources of the data subject whose files stay.
    """

    removed: int = 0
    left: list[str] = field(default_factory=list)
    stays: list[str] = field(default_factory=list)
    kept: set[str] = field(default_factory=set)


def clear(home: Home, subject: DataSubject) -> InboxErasure:
    """Delete videos, transcripts, archives and lines of a data subject.

    A file is deleted only if it still holds the ingested bytes. An archive is deleted as a whole:
    its other entries were unpacked and stay. An archive with entries that were not imported stays
    and is reported, as is everything outside the inbox. Can be repeated after a crash.
    """
    done, gone = InboxErasure(), set[Path]()
    ingested = set(tables.read(home, "videos")["video_id"])
    for uri in subject.sources:
        if "://" in uri:
            note = "the download was deleted here; its publisher may still distribute it"
            done.left.append(f"{downloads.redact_url(uri)}: {note}")
            continue
        path = local_path(home, uri)
        why = _reason_to_keep(home, subject, path, uri, ingested) if os.path.lexists(path) else None
        if home.inbox not in path.parents:
            outside = _with_transcripts(path) if os.path.lexists(path) else []
            done.left += [f"{one}: {_outside(one)}" for one in outside]
        elif why is not None:
            done.kept.add(uri)
            done.stays += [f"{path}: {why}"] if why else []
        else:
            gone.add(path)
            _delete(home, path, done)
    downloads.forget(home.inbox, set(subject.sources) - done.kept)
    named = _from_listings(home, subject, done, ingested)
    _from_sidecars(home, subject, done, ingested, gone=gone, named=named)
    return done


def _reason_to_keep(
    home: Home, subject: DataSubject, path: Path, uri: str, ingested: set[str]
) -> str | None:
    """Return why a file stays; empty if it is known to show others."""
    if home.inbox not in path.parents:
        return None
    batch = home.inbox / path.relative_to(home.inbox).parts[0]
    if path.is_file() and (download := downloads.read(batch, uri)) is not None:
        stat = path.stat()
        # The path differs on machines that did not unpack it, and so does the file time.
        if str(path) == uri and download.marks.get("") != f"{stat.st_size} {stat.st_mtime_ns}":
            return "this archive changed after it was unpacked; check whether it holds their data"
        if download.refused:
            first = sorted(download.refused)[0]
            return (
                f"this archive holds their data and {len(download.refused)} entries that were not "
                f"imported ({first}); remove their data from it, or delete it"
            )
        return None
    videos = {*subject.videos, *subject.shared}
    if unreadable_video_id(uri) in videos:
        return None
    found = video_id(file_sha256(str(path))) if path.is_file() else ""
    if not found or found in videos:
        return None
    if found in ingested:
        return ""
    return "it changed after it was ingested; check whether it shows them"


def _outside(path: Path) -> str:
    if path.suffix.lower() == ".zip":
        return "an archive outside this home; it may hold videos of others too"
    return "it is outside this home"


def _with_transcripts(path: Path) -> list[Path]:
    """Return a video and its transcripts, those that exist."""
    beside = [one for one in sorted(path.parent.glob("*")) if one != path]
    words = [one for one in beside if one.suffix.lower() in downloads.TRANSCRIPTS]
    # If another video has the same stem, the owner of the transcript is unknown.
    others = {one.stem for one in beside if one not in words}
    heads = {path.name} | ({path.stem} - others)
    spoken = [] if path.suffix.lower() == ".zip" else words
    return [one for one in [path, *spoken] if one == path or one.stem in heads]


def _delete(home: Home, path: Path, done: InboxErasure) -> None:
    for one in _with_transcripts(path):
        target = one.resolve()
        if not os.path.lexists(one):
            continue
        if one.is_symlink() and target.exists() and home.inbox not in target.parents:
            done.left.append(f"{target}: {_outside(target)}")
        done.removed += 1
        atomic.remove(one)
    # Delete empty folders, because folders are often named after a person.
    for folder in path.parents:
        if len(folder.relative_to(home.inbox).parts) < 2 or any(folder.glob("*")):
            return
        if folder.is_dir():
            folder.rmdir()


def _from_listings(
    home: Home, subject: DataSubject, done: InboxErasure, ingested: set[str]
) -> dict[Path, set[str]]:
    """Drop the data subject's lines; return their file names by folder."""
    named: dict[Path, set[str]] = {}
    gone = set(subject.sources) - done.kept
    for listing in sorted(home.inbox.glob(f"*/{_LISTING}")):
        lines = listing.read_text(encoding="utf-8").splitlines()
        stay = []
        for text in lines:
            line = _parsed(text)
            uri = _address(listing, str(line.get("uri") or ""))
            declared = subject.kind == "subject" and line.get("subject_id") == subject.name
            if not (declared or uri in gone):
                stay.append(text)
                continue
            last = Path(urlsplit(uri).path if "://" in uri else uri).name
            named.setdefault(listing.parent, set()).add(str(line.get("file_name") or last))
            if declared and uri not in subject.sources:
                _declared(home, Path(uri), listing, done, ingested)
        _put(listing, lines, stay)
    return named


def _from_sidecars(
    home: Home,
    subject: DataSubject,
    done: InboxErasure,
    ingested: set[str],
    *,
    gone: set[Path],
    named: dict[Path, set[str]],
) -> None:
    for sidecar in sorted(home.inbox.glob(f"*/**/{_SIDECAR}")):
        try:
            lines = sidecar.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError):
            done.left.append(f"{sidecar}: it cannot be read; check whether it names them")
            continue
        head, stay = next(csv.reader(lines[:1]), []), lines[:1]
        for text in lines[1:]:
            cells = [cell.strip() for cell in next(csv.reader([text]), [])]
            row = dict(zip(head, cells, strict=False))
            name = row.get("file_name") or ""
            path = Path(os.path.abspath(sidecar.parent / name))
            declared = subject.kind == "subject" and subject.name in cells
            if not (declared or path in gone or name in named.get(sidecar.parent, ())):
                stay.append(text)
            elif declared and name and path not in gone and str(path) not in subject.sources:
                _declared(home, path, sidecar, done, ingested)
        _put(sidecar, lines, stay)


def _declared(home: Home, path: Path, where: Path, done: InboxErasure, ingested: set[str]) -> None:
    """Delete a file declared as theirs that was never ingested as such."""
    if not os.path.lexists(path):
        return
    if home.inbox not in path.parents:
        done.left.append(f"{path}: {_outside(path)}")
    elif path.is_file() and video_id(file_sha256(str(path))) in ingested:
        done.left.append(
            f"{path}: {where.name} declares it as theirs, but it was ingested as another subject's"
        )
    else:
        _delete(home, path, done)


def _parsed(text: str) -> dict[str, object]:
    """Parse a line of a listing; empty if it is invalid, which ingest reports."""
    try:
        line = json.loads(text)
    except ValueError:
        return {}
    return line if isinstance(line, dict) else {}


def _address(listing: Path, uri: str) -> str:
    """Return a listed path or URL as ``videos`` and ``downloads`` store it."""
    return public_url(uri) if "://" in uri or not uri else os.path.abspath(listing.parent / uri)


def _put(path: Path, before: list[str], after: list[str]) -> None:
    if after != before:
        atomic.write_text(path, "".join(line + "\n" for line in after))
