"""Read the tables that people write beside their files.

``videos.csv``, ``metadata.csv``, ``segments.csv``: columns are matched without case, blanks and
common synonyms. What is not understood is returned, never passed over.
"""

from __future__ import annotations

import csv
import os
import re
import stat
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from warehouse.errors import SettingsError

MAX_BYTES = 256 << 20

SEGMENTS = "segments.csv"
"""Lies beside the videos, one row per segment. ``<video>.segments.csv`` is of one video."""

_OF_ONE = re.compile(r"(?i)(.+)\.([\w-]+)\.(?:csv|parquet|edf)")

FILE_NAME = ("file_name", "filename", "file", "path", "file_path", "filepath", "name")
SUBJECT = ("subject_id", "subject", "person", "person_id", "identity", "participant",
           "participant_id", "subjectid", "personid", "participantid", "proband", "actor",
           "actor_id", "speaker", "speaker_id")  # fmt: skip
LICENCE = ("licence", "license", "licence_name", "license_name", "licence_type", "license_type",
           "lizenz")  # fmt: skip
CONSENT = ("consent", "consents", "consented", "consent_given", "consent_status", "has_consent",
           "informed_consent", "permission", "einwilligung")  # fmt: skip
SOURCE = ("source", "origin")

_OF_REFUSAL = re.compile(r"opt(?:ed)?_?out|withdr|revok|refus|declin|objection|widerruf")
_OF_EITHER = re.compile(rf"{_OF_REFUSAL.pattern}|consent|permission|einwillig|zustimm|toestemming")
"""In the name of a column that is not read: what a person wants may be in it."""

VIDEO_COLUMNS = {
    "file_name": (*FILE_NAME, "video", "video_name", "image"),
    "subject_id": SUBJECT, "licence": LICENCE, "consent": CONSENT, "source": SOURCE,
}  # fmt: skip
"""Columns of ``videos.csv`` and the names they are known by, the preferred one first."""

FACTS = {
    **{f"subject_{name}": (f"subject_{name}",)
       for name in ("age_group", "gender", "first_language", "group", "diagnosis_source")},
    **{f"session_{name}": (f"session_{name}",)
       for name in ("place", "elicitation", "device", "camera", "occluder", "task")},
}  # fmt: skip
"""Columns of ``videos.csv`` with facts about a person or a recording."""

STATED_BY = {name: f"{name}_stated_by" for name in FACTS}
"""Column of a fact to the column that says who stated it; ``stated_by`` is for all."""

FACT_COLUMNS = FACTS | {
    name: (name,) for name in (*STATED_BY.values(), "stated_by", "subject_consent")
}

METADATA_COLUMNS = {
    "file_name": (*FILE_NAME, "image", "image_name", "image_path", "img"),
    "subject_id": SUBJECT, "licence": LICENCE, "consent": CONSENT,
    "label": ("label", "labels", "emotion", "expression", "class", "category", "answer", "target"),
    "votes": ("votes", "vote_counts", "counts"),
    "rater_id": ("rater_id", "rater", "annotator", "annotator_id", "worker", "worker_id", "coder"),
    "created_at": ("created_at", "time", "timestamp", "date", "annotated_at"),
    "split": ("split", "subset", "usage", "partition"),
}  # fmt: skip
"""Columns of ``metadata.(csv|jsonl|parquet)``."""


@dataclass(frozen=True)
class SidecarTable:
    """Rows of a table by our names of its columns.

    Attributes:
        rows: one mapping per row, texts stripped; empty cells are left out.
        columns: our names of the columns that were found.
        notes: columns that are none of ours, in sentences.
    """

    rows: list[dict[str, str]]
    columns: frozenset[str]
    notes: list[str] = field(default_factory=list)


def read_csv(path: Path, columns: Mapping[str, Sequence[str]]) -> SidecarTable:
    """Read a table with commas, semicolons or tabs.

    Args:
        columns: our name of a column to the names it is known by.

    Raises:
        SettingsError: it is no text table, two of its columns mean the same, or a row has more
            cells than there are columns, which would move every answer to its neighbour.
    """
    lines = read_text(path).split("\n")
    header = next((line for line in lines if line.strip()), "")
    separator = separator_of(header)
    try:
        # strict: a quote that is never closed would swallow every following row.
        table = csv.reader((f"{line}\n" for line in lines), delimiter=separator, strict=True)
        numbered = [(table.line_num, cells) for cells in table if any(map(str.strip, cells))]
    except csv.Error as error:
        raise SettingsError(
            f"{path.name} is not a table of comma-separated text",
            got=str(error),
            hint=f"save {path} again as CSV, UTF-8",
        ) from None
    if not numbered:
        return SidecarTable([], frozenset())
    names = numbered[0][1]
    found, notes = match_columns(names, columns, path=path)
    rows = []
    for number, cells in numbered[1:]:
        if any(cell.strip() for cell in cells[len(names) :]):
            raise SettingsError(
                f"A row of {path.name} has more cells than the table has columns",
                got=f"line {number}: {len(cells)} cells, {len(names)} columns",
                hint="put names that hold a comma in quotes",
            )
        pairs = zip(names, cells, strict=False)
        texts = ((found[name], cell.strip()) for name, cell in pairs if name in found)
        rows.append({name: text for name, text in texts if text})
    return SidecarTable(rows, frozenset(found.values()), notes)


def owner_of(name: str) -> str | None:
    """Return the video of a file ``<video>.<kind>.(csv|parquet|edf)``."""
    found = _OF_ONE.fullmatch(name)
    return found[1] if found else None


def kind_of(name: str) -> str | None:
    """Return the kind of a file ``<video>.<kind>.(csv|parquet|edf)``."""
    found = _OF_ONE.fullmatch(name)
    return found[2].lower() if found else None


def is_of_segments(name: str) -> bool:
    """Return whether a file lists segments."""
    return name.lower() == SEGMENTS or name.lower().endswith(f".{SEGMENTS}")


def match_columns(
    names: Sequence[str], columns: Mapping[str, Sequence[str]], *, path: Path
) -> tuple[dict[str, str], list[str]]:
    """Return the columns of a table as ours, and notes on those that are not.

    Where a column has our own name, its synonyms beside it are other columns.

    Raises:
        SettingsError: two columns mean the same and neither has our own name, or a column that
            is not read may hold a refusal.
    """
    plain = {name: plain_name(name) for name in names}
    found: dict[str, str] = {}
    for ours, known in columns.items():
        alike = [name for name in names if plain[name] in known]
        own = [name for name in alike if plain[name] == ours]
        if len(own or alike) > 1:
            raise SettingsError(
                f"{path.name} has two columns for {ours}",
                got=", ".join(repr(name) for name in own or alike),
                hint="remove or rename one of them",
            )
        found |= dict.fromkeys(own or alike, ours)
    strange = [name for name in names if name not in found and plain[name]]
    if "consent" in columns:
        unread = _OF_REFUSAL if "consent" in found.values() else _OF_EITHER
        if said := [name for name in strange if unread.search(plain[name])]:
            raise SettingsError(
                f"A column of {path.name} may say who refused, but is not read",
                got=", ".join(repr(name) for name in said),
                hint="write what it says into a column `consent`, and remove or rename this one",
            )
    shown = ", ".join(name for name in columns if not name.endswith("_stated_by"))
    note = f"{path.name}: not read: " + ", ".join(repr(name.strip()) for name in strange)
    return found, [f"{note}. Columns that count: {shown}"] if strange else []


def plain_name(name: str) -> str:
    """Return a column's name in lower case, ``_`` between its words.

    What stands in brackets is left out, as in ``Consent? (y/n)``.
    """
    folded = unicodedata.normalize("NFKC", name).casefold()
    return "_".join(re.findall(r"[^\W_]+", re.sub(r"\([^)]*\)|\[[^\]]*\]", " ", folded)))


def separator_of(line: str) -> str:
    """Return what separates the cells of a line: comma, semicolon or tab."""
    return max(",;\t", key=line.count)


def decode(data: bytes) -> str:
    """Return the text of UTF-8, with or without a mark, or of marked UTF-16.

    Raises:
        UnicodeDecodeError: it is neither.
    """
    wide = data[:2] in (b"\xff\xfe", b"\xfe\xff")
    return data.decode("utf-16" if wide else "utf-8-sig")


def read_text(path: Path) -> str:
    """Return the text of a sidecar with ``\\n`` between its lines.

    UTF-8 with or without a mark, and UTF-16 with one, as spreadsheets write them.

    Raises:
        SettingsError: it is no regular file, too large, or no such text.
    """
    data = read_bytes(path)
    try:
        text = decode(data)
    except UnicodeDecodeError as error:
        raise SettingsError(
            f"{path.name} is not comma-separated UTF-8 text",
            got=f"{type(error).__name__}: {error}",
            hint=f"save {path} again as CSV, UTF-8",
        ) from None
    if "\0" in text:
        raise SettingsError(
            f"{path.name} is not text",
            got=f"a NUL in line {text[: text.index(chr(0))].count(chr(10)) + 1}",
            hint=f"save {path} again as CSV, UTF-8",
        )
    return text.lstrip("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def read_bytes(path: Path) -> bytes:
    """Return the bytes of a regular file of at most ``MAX_BYTES``.

    Raises:
        SettingsError: it is something else: a pipe would wait for ever, a device never end.
    """
    try:
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode):
            raise SettingsError(
                f"{path.name} is no regular file",
                got=stat.filemode(found.st_mode),
                hint=f"put a file there, or remove {path}",
            )
        if found.st_size > MAX_BYTES:
            raise SettingsError(
                f"{path.name} is larger than {MAX_BYTES >> 20} MB",
                got=f"{found.st_size} bytes",
                hint="split the batch",
            )
        return path.read_bytes()
    except OSError as error:
        raise SettingsError(
            f"{path.name} cannot be read",
            got=error.strerror or type(error).__name__,
            hint=f"check {path} and its permissions",
        ) from None
