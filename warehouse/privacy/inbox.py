"""Somebody leaves the inbox: their files go, wherever they lie, or a person is told why not."""

from __future__ import annotations

import csv
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from warehouse.ids import file_sha256, unreadable_video_id, video_id
from warehouse.privacy.data_subject import DataSubject, here
from warehouse.storage import atomic, downloads, tables
from warehouse.storage.home import Home

_SIDECAR, _LISTING = "videos.csv", "sources.jsonl"


@dataclass
class Cleared:
    """What became of somebody's files.

    Attributes:
        removed: files deleted.
        left: ``<where>: <why>`` for each thing that shows them, or may, and is not ours to delete.
        stays: the same for files of the inbox, which hold something of others too, or may.
        kept: addresses of theirs under which something lies that is not, or not only, theirs.
    """

    removed: int = 0
    left: list[str] = field(default_factory=list)
    stays: list[str] = field(default_factory=list)
    kept: set[str] = field(default_factory=set)


def clear(home: Home, leaver: DataSubject) -> Cleared:
    """Delete their videos with transcripts and archives, and their lines in listings and sidecars.

    A file goes only when it holds the bytes that were ingested. An archive goes as a whole, for
    what it held of others was unpacked and stands on its own; one with entries that never came in
    stays, and is told. So is whatever lies outside the inbox. May be called again after a crash.
    """
    done, gone = Cleared(), set[Path]()
    ingested = set(tables.read(home, "videos")["video_id"])
    for uri in leaver.sources:
        if "://" in uri:
            told = "what came from there is deleted here; whoever keeps it may still give it out"
            done.left.append(f"{downloads.redact_url(uri)}: {told}")
            continue
        path = here(home, uri)
        why = _why_not(home, leaver, path, uri, ingested) if os.path.lexists(path) else None
        if home.inbox not in path.parents:
            there = _with_words(path) if os.path.lexists(path) else []
            done.left += [f"{one}: {_outside(one)}" for one in there]
        elif why is not None:
            done.kept.add(uri)
            done.stays += [f"{path}: {why}"] if why else []
        else:
            gone.add(path)
            _delete(home, path, done)
    downloads.forget(home.inbox, set(leaver.sources) - done.kept)
    named = _from_listings(home, leaver, done, ingested)
    _from_sidecars(home, leaver, done, ingested, gone=gone, named=named)
    return done


def _why_not(
    home: Home, leaver: DataSubject, path: Path, uri: str, ingested: set[str]
) -> str | None:
    """Why a file of the inbox stays; empty when it is known to be somebody else's."""
    if home.inbox not in path.parents:
        return None
    batch = home.inbox / path.relative_to(home.inbox).parts[0]
    if path.is_file() and (arrival := downloads.read(batch, uri)) is not None:
        stat = path.stat()
        # On another machine than the one that unpacked it, the same file has another time.
        if str(path) == uri and arrival.marks.get("") != f"{stat.st_size} {stat.st_mtime_ns}":
            return "this archive changed since it was unpacked; see whether it holds theirs"
        if arrival.refused:
            never = sorted(arrival.refused)[0]
            return (
                f"this archive holds theirs, and what never came in ({never}, of "
                f"{len(arrival.refused)}); take theirs out of it, or delete it"
            )
        return None
    theirs = {*leaver.videos, *leaver.shared}
    if unreadable_video_id(uri) in theirs:
        return None
    found = video_id(file_sha256(str(path))) if path.is_file() else ""
    if not found or found in theirs:
        return None
    if found in ingested:
        return ""
    return "it changed since it was ingested; see whether it shows them"


def _outside(path: Path) -> str:
    if path.suffix.lower() == ".zip":
        return "an archive outside this home; it may hold videos of others too"
    return "it lies outside this home"


def _with_words(path: Path) -> list[Path]:
    """A video and the transcripts beside it, those that are there."""
    beside = [one for one in sorted(path.parent.glob("*")) if one != path]
    words = [one for one in beside if one.suffix.lower() in downloads.TRANSCRIPTS]
    # Of a name that another video bears too, nobody knows whose words they are.
    others = {one.stem for one in beside if one not in words}
    heads = {path.name} | ({path.stem} - others)
    spoken = [] if path.suffix.lower() == ".zip" else words
    return [one for one in [path, *spoken] if one == path or one.stem in heads]


def _delete(home: Home, path: Path, done: Cleared) -> None:
    for one in _with_words(path):
        target = one.resolve()
        if not os.path.lexists(one):
            continue
        if one.is_symlink() and target.exists() and home.inbox not in target.parents:
            done.left.append(f"{target}: {_outside(target)}")
        done.removed += 1
        atomic.remove(one)
    # Folders are often named after who is seen in them.
    for folder in path.parents:
        if len(folder.relative_to(home.inbox).parts) < 2 or any(folder.glob("*")):
            return
        if folder.is_dir():
            folder.rmdir()


def _from_listings(
    home: Home, leaver: DataSubject, done: Cleared, ingested: set[str]
) -> dict[Path, set[str]]:
    """Drop their lines; returns what the dropped ones were called, by folder."""
    named: dict[Path, set[str]] = {}
    gone = set(leaver.sources) - done.kept
    for listing in sorted(home.inbox.glob(f"*/{_LISTING}")):
        lines = listing.read_text(encoding="utf-8").splitlines()
        stay = []
        for text in lines:
            line = _parsed(text)
            uri = _address(listing, str(line.get("uri") or ""))
            declared = leaver.kind == "subject" and line.get("subject_id") == leaver.name
            if not (declared or uri in gone):
                stay.append(text)
                continue
            last = Path(urlsplit(uri).path if "://" in uri else uri).name
            named.setdefault(listing.parent, set()).add(str(line.get("file_name") or last))
            if declared and uri not in leaver.sources:
                _declared(home, Path(uri), listing, done, ingested)
        _put(listing, lines, stay)
    return named


def _from_sidecars(
    home: Home,
    leaver: DataSubject,
    done: Cleared,
    ingested: set[str],
    *,
    gone: set[Path],
    named: dict[Path, set[str]],
) -> None:
    for sidecar in sorted(home.inbox.glob(f"*/**/{_SIDECAR}")):
        try:
            lines = sidecar.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError):
            done.left.append(f"{sidecar}: nobody can read it; see whether it names them")
            continue
        head, stay = next(csv.reader(lines[:1]), []), lines[:1]
        for text in lines[1:]:
            cells = [cell.strip() for cell in next(csv.reader([text]), [])]
            row = dict(zip(head, cells, strict=False))
            name = row.get("file_name") or ""
            path = Path(os.path.abspath(sidecar.parent / name))
            declared = leaver.kind == "subject" and leaver.name in cells
            if not (declared or path in gone or name in named.get(sidecar.parent, ())):
                stay.append(text)
            elif declared and name and path not in gone and str(path) not in leaver.sources:
                _declared(home, path, sidecar, done, ingested)
        _put(sidecar, lines, stay)


def _declared(home: Home, path: Path, where: Path, done: Cleared, ingested: set[str]) -> None:
    """Delete a file that was said to be theirs and never ingested as such."""
    if not os.path.lexists(path):
        return
    if home.inbox not in path.parents:
        done.left.append(f"{path}: {_outside(path)}")
    elif path.is_file() and video_id(file_sha256(str(path))) in ingested:
        done.left.append(f"{path}: {where.name} called it theirs, and it was ingested as another's")
    else:
        _delete(home, path, done)


def _parsed(text: str) -> dict[str, object]:
    """A line of a listing; nothing for one that is none, which ingest will tell."""
    try:
        line = json.loads(text)
    except ValueError:
        return {}
    return line if isinstance(line, dict) else {}


def _address(listing: Path, told: str) -> str:
    """What a line of a listing names, as ``videos`` and ``arrivals`` have it."""
    return told if "://" in told or not told else os.path.abspath(listing.parent / told)


def _put(path: Path, before: list[str], after: list[str]) -> None:
    if after != before:
        atomic.write_text(path, "".join(line + "\n" for line in after))
