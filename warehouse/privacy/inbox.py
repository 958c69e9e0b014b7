"""Erase a data subject's files from the inbox, or report why one stays.

Files are found by the rows that name them, by the lists that declare them, and by their bytes:
rows hold the paths of the machine and folder that a home had when it was written.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from warehouse import sidecar
from warehouse.ids import file_sha256, fold_name, sha256_of, unreadable_video_id, video_id
from warehouse.masking import public_url
from warehouse.storage import atomic, downloads, mirror, tables
from warehouse.storage.home import Home

if TYPE_CHECKING:
    from warehouse.privacy.data_subject import DataSubject

_LISTS = (".csv", ".tsv", ".jsonl")
_OTHER_ARCHIVES = (".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar")
_LIST_BYTES = 256 << 20
_CHUNK = 1 << 20


@dataclass
class InboxErasure:
    """Result of erasing a data subject's files from the inbox.

    Attributes:
        removed: number of files deleted.
        left: ``<where>: <why>`` for data outside the home, which is not deleted.
        stays: files of the inbox that may hold data of others too, with the reason.
        kept: sources of the data subject whose files stay.
    """

    removed: int = 0
    left: list[str] = field(default_factory=list)
    stays: dict[Path, str] = field(default_factory=dict)
    kept: set[str] = field(default_factory=set)


def local_paths(home: Home, uri: str) -> list[Path]:
    """Return the paths of a ``uri``: in this inbox, and as written.

    A home may have been moved, restored elsewhere, opened through a link, or written on another
    machine.
    """
    if "://" in uri:
        return []
    path = Path(uri)
    inside = _inside(home, path)
    if inside is not None:
        return [inside]
    for at, part in enumerate(path.parts):
        if part == home.inbox.name:
            found = home.inbox.joinpath(*path.parts[at + 1 :])
            if os.path.lexists(found) and found != home.inbox:
                return [found, path]
    return [path]


def local_path(home: Home, uri: str) -> Path:
    """Return the file of a ``uri`` here; as written if there is none."""
    paths = local_paths(home, uri)
    return next((path for path in paths if path.is_file()), Path(uri))


def find_listed(home: Home, kind: str, name: str, *, exhaustive: bool) -> dict[str, str]:
    """Return what the inbox declares of a subject or holds of a video.

    Args:
        exhaustive: compare the bytes of every file with a video's id.

    Returns:
        Path or URL to the video id of its bytes, empty for a URL.
    """
    from warehouse.privacy.data_subject import is_same

    found: dict[str, str] = {}
    if kind == "subject":
        for path in _lists(home.inbox):
            for line in _read_list(path) or ():
                if any(is_same(kind, cell, name) for cell in line.cells):
                    found |= _ids_of(home, line.sources)
    elif exhaustive:
        for path in _files(home.inbox):
            if video_id(file_sha256(str(path))) == name:
                found[str(path)] = name
    return found


def _ids_of(home: Home, sources: Iterable[str]) -> dict[str, str]:
    found = {one: "" for one in sources if "://" in one}
    for one in sources:
        for path in local_paths(home, one):
            if path.is_file():
                found[one] = video_id(file_sha256(str(path)))
    return found


def clear(home: Home, subject: DataSubject) -> InboxErasure:
    """Delete videos, transcripts, archives and lines of a data subject.

    A file that a row names is deleted only if it still holds the ingested bytes; a file with
    those bytes is deleted under any name. An archive is deleted as a whole if its other entries
    were unpacked and stay. Another archive that holds their data stays and is reported, as is
    everything outside the inbox. Can be repeated after a crash. No other process may write.
    """
    return _Clearing(home, subject).run()


class _Clearing:
    """One pass over the inbox."""

    def __init__(self, home: Home, subject: DataSubject) -> None:
        self.home, self.subject = home, subject
        self.done, self.gone = InboxErasure(), set[Path]()
        self.theirs = {*subject.videos, *subject.shared}
        self.ingested = set(tables.read(home, "videos")["video_id"]) - self.theirs

    def run(self) -> InboxErasure:
        if mirror.find(self.home.inbox / "any") is None:
            _delete_unrecorded(self.home.inbox)  # on a store another machine may be writing them
        for uri in self.subject.sources:
            if "://" in uri:
                note = "the download was deleted here; its publisher may still distribute it"
                self.done.left.append(f"{downloads.redact_url(uri)}: {note}")
            for path in local_paths(self.home, uri):
                self._clear_source(path, uri)
        for path in list(_files(self.home.inbox)):
            self._clear_bytes(path)
        downloads.forget(self.home.inbox, set(self.subject.sources) - self.done.kept)
        for path in list(_lists(self.home.inbox)):
            self._clear_list(path)
        return self.done

    def _clear_source(self, path: Path, uri: str) -> None:
        """Delete or report the file of a source."""
        if not os.path.lexists(path):
            self.gone.add(path)
        elif _inside(self.home, path) is None:
            self.done.left += [f"{one}: {_outside(one)}" for one in _with_transcripts(path)]
        elif (why := self._reason_to_keep(path, uri)) is not None:
            self.done.kept.add(uri)
            if why:
                self.done.stays[path] = why
        else:
            self._delete(path)

    def _reason_to_keep(self, path: Path, uri: str) -> str | None:
        """Return why a file stays; empty if it is known to show others."""
        if _is_archive(path):
            return self._archive_reason(path, named=True)
        if unreadable_video_id(uri) in self.theirs:
            return None
        found = video_id(file_sha256(str(path))) if path.is_file() else ""
        if not found or found in self.theirs:
            return None
        if found in self.ingested:
            return ""
        if found in {video_id(file_sha256(str(one))) for one in self._declared_files}:
            return None
        return "it changed after it was ingested; check whether it shows them"

    def _clear_bytes(self, path: Path) -> None:
        """Delete a file that holds their bytes, or an archive of them."""
        if not path.is_file():
            return
        if self._holds(path):
            self._delete(path)
        elif path in self.gone:
            return
        elif zipfile.is_zipfile(path):  # by content: presentations are ZIP archives too
            why = self._archive_reason(path, named=False)
            if why is None:
                self._delete(path)
            elif why:
                self.done.stays[path] = why
        elif path.suffix.lower() in _OTHER_ARCHIVES:
            self.done.left.append(f"{path}: this archive is not searched; check it")

    def _holds(self, path: Path) -> bool:
        if self.subject.sizes and path.stat().st_size not in self.subject.sizes:
            return False
        return video_id(file_sha256(str(path))) in self.theirs

    @cached_property
    def _declared_files(self) -> set[Path]:
        """Files that a list declares as theirs."""
        return {
            path
            for listing in _lists(self.home.inbox)
            for line in _read_list(listing) or ()
            if any(self.subject.is_named(cell) for cell in line.cells)
            for source in line.sources
            for path in local_paths(self.home, source)
            if path.is_file()
        }

    def _archive_reason(self, path: Path, *, named: bool) -> str | None:
        """Return why an archive stays; None if it is deleted.

        Empty if it holds nothing of theirs.

        Args:
            named: files of the data subject came out of it.
        """
        try:
            with zipfile.ZipFile(path) as archive:
                theirs, others = self._sorted_entries(archive)
                unpacked = self._unpacked(path, archive)
        except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError) as error:
            if not named:
                return ""
            return f"this archive held their data and cannot be read now ({error}); check it"
        hidden = [name for name in theirs if theirs[name] is None]
        if not theirs or (len(hidden) == len(theirs) and not named):
            if hidden:
                self.done.left.append(f"{path}: {len(hidden)} entries cannot be searched")
            return ""
        more = sorted(others - unpacked)
        if more or hidden:
            first = [*more, *hidden][0]
            return (
                f"this archive holds their data and {len(more) + len(hidden)} entries that were "
                f"not imported ({first}); remove their data from it, or delete it"
            )
        return None

    def _sorted_entries(self, archive: zipfile.ZipFile) -> tuple[dict[str, bool | None], set[str]]:
        """Return their entries (None: cannot be searched) and the others."""
        entries = [
            one
            for one in archive.infolist()
            if not one.is_dir() and not any(p[0] == "." for p in PurePosixPath(one.filename).parts)
        ]
        declared = set[str]()
        lists = [one for one in entries if PurePosixPath(one.filename).suffix.lower() in _LISTS]
        for one in lists:
            if not one.flag_bits & 1 and one.file_size <= _LIST_BYTES:
                for line in _parse_list(Path(one.filename), archive.read(one)) or ():
                    if any(self.subject.is_named(cell) for cell in line.cells):
                        declared |= {os.path.normpath(source) for source in line.sources}
        theirs: dict[str, bool | None] = {}
        for one in entries:
            nested = one.filename.lower().endswith(".zip")
            if os.path.abspath(one.filename) in declared:
                theirs[one.filename] = True
            elif self.subject.sizes and one.file_size not in self.subject.sizes and not nested:
                continue
            elif one.flag_bits & 1 or nested:
                theirs[one.filename] = None
            elif _entry_id(archive, one) in self.theirs:
                theirs[one.filename] = True
        listed = {one.filename for one in lists}
        plain = {one.filename for one in entries} - theirs.keys() - listed
        return theirs, {
            name
            for name in plain
            if PurePosixPath(name).suffix.lower() not in downloads.TRANSCRIPTS
        }

    def _unpacked(self, path: Path, archive: zipfile.ZipFile) -> set[str]:
        """Return the entries of which a copy of the same size stays in the batch."""
        batch = self.home.inbox / path.relative_to(self.home.inbox).parts[0]
        folders = [
            folder
            for folder, one in downloads.list_all(batch)
            if one.origin and path in local_paths(self.home, one.origin)
        ]
        found = set()
        for one in archive.infolist():
            copies = [folder / one.filename.replace("\\", "/") for folder in folders]
            if any(copy.is_file() and copy.stat().st_size == one.file_size for copy in copies):
                found.add(one.filename)
        return found

    def _delete(self, path: Path) -> None:
        self.gone.add(path)
        for one in _with_transcripts(path):
            target = one.resolve()
            if not os.path.lexists(one):
                continue
            if one.is_symlink() and target.exists() and self.home.inbox not in target.parents:
                self.done.left.append(f"{target}: {_outside(target)}")
            elif one.stat().st_nlink > 1 and not self._other_names(one):
                why = "another name of this file (a hard link) is outside the inbox"
                self.done.left.append(f"{one}: {why}")
            self.done.removed += 1
            atomic.remove(one)
        self._delete_empty(path.parent)

    def _delete_empty(self, folder: Path) -> None:
        """Delete empty folders, because they are often named after a person."""
        while len(folder.relative_to(self.home.inbox).parts) > 1 and not any(folder.glob("*")):
            if folder.is_dir():
                folder.rmdir()
            folder = folder.parent

    def _other_names(self, path: Path) -> bool:
        """Return whether all hard links of a file are in the inbox."""
        own = path.stat()
        same = [one for one in _files(self.home.inbox) if os.path.samestat(one.stat(), own)]
        return len(same) >= own.st_nlink

    def _clear_list(self, path: Path) -> None:
        """Drop the lines that declare the data subject or name a file of theirs."""
        lines = _read_list(path)
        if lines is None:
            self.done.left.append(f"{path}: it cannot be read; check whether it names them")
            return
        stay = []
        gone = set(self.subject.sources) - self.done.kept
        stems = {fold_name(one.stem) for one in self.gone if one.parent == path.parent}

        def names(line: _Line) -> bool:
            """Return whether it names a file of theirs without its suffix."""
            return sidecar.is_of_segments(path.name) and any(
                fold_name(PurePosixPath(cell.replace("\\", "/")).stem) in stems
                for cell in line.cells
                if cell
            )

        for line in lines:
            places = {one for source in line.sources for one in local_paths(self.home, source)}
            declared = any(self.subject.is_named(cell) for cell in line.cells)
            if not (declared or line.sources & gone or places & self.gone or names(line)):
                stay.append(line.text)
            elif declared:
                for place in sorted(places - self.gone):
                    self._clear_declared(place, path)
        text = "".join(stay)
        if len(stay) == len(lines):
            return
        head = path.suffix.lower() != ".jsonl"
        if len(stay) <= head and not any(one != path for one in path.parent.iterdir()):
            atomic.remove(path)
            self._delete_empty(path.parent)
        else:
            atomic.write_bytes(path, text.encode(lines[0].encoding, "surrogateescape"))

    def _clear_declared(self, path: Path, where: Path) -> None:
        """Delete a file declared as theirs that was never ingested as such."""
        if not os.path.lexists(path) or path.is_dir():
            return
        if _inside(self.home, path) is None:
            self.done.left.append(f"{path}: {_outside(path)}")
        elif path.is_file() and video_id(file_sha256(str(path))) in self.ingested:
            self.done.left.append(
                f"{path}: {where.name} declares it as theirs, "
                "but it was ingested as another subject's"
            )
        else:
            self._delete(path)


@dataclass(frozen=True)
class _Line:
    """A record of a list.

    Attributes:
        text: as it stands in the file, with its line end.
        cells: its values.
        sources: paths and URLs that it may name.
    """

    text: str
    encoding: str
    cells: tuple[str, ...] = ()
    sources: frozenset[str] = frozenset()


def _read_list(path: Path) -> list[_Line] | None:
    try:
        return _parse_list(path, path.read_bytes())
    except OSError:
        return None


def _parse_list(path: Path, data: bytes) -> list[_Line] | None:
    """Parse a CSV or JSON Lines file of any columns; None if it is no text.

    Whatever column a name stands in, a value that equals a subject's declares the record, and
    every other value may be its file. Relative ones start at the folder of the list.
    """
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8"
    try:
        text = data.decode(encoding, "surrogateescape")
    except UnicodeDecodeError:
        return None
    if "\0" in text:
        return None
    # Not splitlines: U+2028 and the like end no record.
    texts = text.replace("\r\n", "\n").split("\n")
    ends = [f"{line}\n" for line in texts[:-1]] + ([texts[-1]] if texts[-1] else [])
    if path.suffix.lower() == ".jsonl":
        lines = [(one, _parsed(one)) for one in ends if one.strip()]
        return [
            _line(path, one, encoding, list(_strings(value)), uri=_uri_of(value))
            for one, value in lines
        ]
    found: list[_Line] = []
    reader, start = csv.reader(ends, delimiter=_delimiter(ends, path)), 0
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return found
        except csv.Error:
            cells = []
        end = max(reader.line_num, start + 1)
        found.append(_line(path, "".join(ends[start:end]), encoding, cells, head=not start))
        start = end


def _line(
    path: Path,
    text: str,
    encoding: str,
    values: list[str],
    *,
    uri: str | None = None,
    head: bool = False,
) -> _Line:
    cells = [value.lstrip("\ufeff").strip() for value in values]
    # Spreadsheets of old write another encoding, in which a name is spelled with other bytes.
    for cell in list(cells):
        raw = cell.encode("utf-8", "surrogateescape")
        cells += [] if cell.isascii() else [raw.decode("cp1252", "replace")]
    # The other addresses of a record are those of licences and consent forms.
    sources = {uri} if uri else set()
    if not head:
        sources |= {
            os.path.abspath(path.parent / cell)
            for cell in cells
            if cell and "://" not in cell and "\0" not in cell and len(cell) < 4096
        }
    return _Line(text, encoding, tuple(cells), frozenset(sources))


def _uri_of(value: object) -> str | None:
    uri = value.get("uri") if isinstance(value, dict) else None
    return public_url(uri) if isinstance(uri, str) and "://" in uri else None


def _delimiter(lines: list[str], path: Path) -> str:
    if path.suffix.lower() == ".tsv":
        return "\t"
    head = lines[0] if lines else ""
    return max(",;\t", key=lambda one: (head.count(one), one == ","))


def _parsed(text: str) -> object:
    """Parse a line of a listing; empty if it is invalid, which ingest reports."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return {}


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from _strings(one)
    elif isinstance(value, list):
        for one in value:
            yield from _strings(one)


def _files(folder: Path) -> Iterator[Path]:
    """Yield all regular files, hidden ones too, not of linked folders."""
    for top, _, names in os.walk(folder):
        for name in sorted(names):
            path = Path(top) / name
            if path.is_file():
                yield path


def _lists(inbox: Path) -> Iterator[Path]:
    for path in _files(inbox):
        if path.suffix.lower() in _LISTS and path.stat().st_size <= _LIST_BYTES:
            yield path


def _delete_unrecorded(inbox: Path) -> None:
    """Delete unrecorded downloads of killed processes."""
    for folder in sorted(inbox.glob(f"*/{downloads.FOLDER}/*")):
        if folder.is_dir() and not folder.with_suffix(".json").exists():
            for path in _files(folder):
                atomic.remove(path)
            shutil.rmtree(folder, ignore_errors=True)


def _inside(home: Home, path: Path) -> Path | None:
    """Return the path below this inbox; None if the file is elsewhere."""
    if home.inbox in path.parents and ".." not in path.parts:
        real = path.parent.resolve()
        return path if real.is_relative_to(home.inbox.resolve()) else None
    try:
        below = path.parent.resolve().relative_to(home.inbox.resolve())
    except (ValueError, OSError, RuntimeError):
        return None
    return home.inbox / below / path.name


def _is_archive(path: Path) -> bool:
    return path.suffix.lower() == ".zip" and path.is_file() and zipfile.is_zipfile(path)


def _entry_id(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> str:
    try:
        with archive.open(entry) as handle:
            return video_id(sha256_of(iter(lambda: handle.read(_CHUNK), b"")))
    except (zipfile.BadZipFile, OSError, RuntimeError, EOFError, ValueError):
        return ""


def _outside(path: Path) -> str:
    if path.suffix.lower() == ".zip":
        return "an archive outside this home; it may hold videos of others too"
    return "it is outside this home"


def _with_transcripts(path: Path) -> list[Path]:
    """Return a video, its transcripts, segments and sensors: those that exist."""
    beside = [one for one in sorted(path.parent.glob("*")) if one != path]
    words = [one for one in beside if one.suffix.lower() in downloads.TRANSCRIPTS]
    # If another video has the same stem, the owner of the transcript is unknown.
    others = {one.stem for one in beside if one not in words and not sidecar.owner_of(one.name)}
    heads = {path.name} | ({path.stem} - others)
    spoken = [] if path.suffix.lower() == ".zip" else [*words, *beside]
    owners = {one: (one.stem, sidecar.owner_of(one.name)) for one in spoken}
    own = [
        one
        for one, (stem, owner) in owners.items()
        if owner in heads or (one in words and stem in heads)
    ]
    return list(dict.fromkeys([path, *own]))
