"""Read labels of a dataset from ``metadata.(csv|jsonl|parquet)``."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path, PurePosixPath
from random import Random
from typing import Any

from pipeline.importers import text
from pipeline.importers.words import Words
from pipeline.ingest import names
from warehouse import consent, sidecar
from warehouse.errors import SettingsError
from warehouse.terms_of_copies import strictest_terms

NAMES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
DECLARED = ("subject_id", "licence", "consent")
MAX_VOTES = 10_000
"""Per image. Each vote becomes a row, and a typing error must not become a billion of them."""

_SHOWN = 5


@dataclass(frozen=True)
class SourceVote:
    """One rater's answer about one image.

    Attributes:
        rater: the dataset's name of the rater, or ``seat-<n>`` if it only counts votes. A seat
            may belong to different people on different images.
        answers: names of the label set, in its order.
        at: time of the vote in UTC, if the dataset has it.
    """

    file_name: str
    rater: str
    answers: tuple[str, ...]
    at: datetime | None = None


@dataclass
class Metadata:
    """Content of a metadata file.

    Attributes:
        files: declared ``subject_id, licence, consent`` of every image, by file name.
        splits: declared split of the images that have one.
        votes: by image and rater.
        unknown: labels that stand for no answer, and how often they occur.
        notes: remarks for the user about how rows were read.
    """

    path: Path
    files: dict[str, dict[str, str | None]] = field(default_factory=dict)
    splits: dict[str, str] = field(default_factory=dict)
    votes: list[SourceVote] = field(default_factory=list)
    unknown: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)


def read(folder: Path, *, words: Words | None = None, label_column: str | None = None) -> Metadata:
    """Read the metadata file of a folder.

    Each image (``file_name``) has ``label``; or ``votes``, a map from expression to count (in CSV
    as JSON text); or rows of ``rater_id, label``, one per vote. Synonyms of expressions are
    known. ``subject_id``, ``licence``, ``consent`` and ``created_at`` (ISO 8601) are optional.
    In a row with both votes and a label the votes count. Labels that are no answer are counted
    in ``unknown``.

    Args:
        words: the answers that labels stand for; by default the expressions.
        label_column: name of the column of the labels, if it is another one.

    Raises:
        SettingsError: there is not exactly one such file, ``file_name`` is missing, no label is
            known, a count is not a number, or an image without rater has two labels.
    """
    path = _find(folder)
    metadata = Metadata(path)
    words = words or Words("expressions8")
    unknown = metadata.unknown
    given: dict[tuple[str, str, datetime | None], dict[str, None]] = {}
    ignored = 0
    rows, columns, metadata.notes = _rows(path, label_column)
    spelt = _spellings(folder, [_file_name(row, path=path, number=n) for n, row in _numbered(rows)])
    for number, row in _numbered(rows):
        name = _file_name(row, path=path, number=number)
        name = spelt.get(name, name)
        declared = {key: _text(row.get(key)) for key in DECLARED}
        _declare(metadata.files.setdefault(name, dict.fromkeys(DECLARED)), declared)
        if split := _text(row.get("split")):
            metadata.splits[name] = split
        ignored += bool(_text(row.get("label")) and row.get("votes"))
        for rater, label in _votes(row, name=name, path=path, number=number):
            answer = words.answer(label)
            if answer is None:
                unknown[label] += 1
            if not answer:
                continue
            at = _time(row.get("created_at"), path=path, number=number)
            given.setdefault((name, rater, at), {})[answer] = None
    _check(unknown, given, path, words)
    places = [one.name for one in words.label_set.answers]
    for (name, rater, at), answers in sorted(_joined(given).items(), key=_by_time):
        ordered = tuple(sorted(answers, key=lambda one: (one not in places, places.index(one)
                               if one in places else 0, one)))  # fmt: skip
        metadata.votes.append(SourceVote(name, rater or "label", ordered, at))
    if not metadata.votes:
        raise SettingsError(
            f"{path.name} labels no image",
            got=f"{len(rows)} rows with {', '.join(sorted(columns))}"
            + "".join(f"; {note}" for note in metadata.notes),
            hint="name the column of the answers label, votes, or rater_id and label; pictures "
            "without labels are taken by `risorius ingest`",
        )
    metadata.notes += [*_retests(metadata.votes), *_unreadable_consents(metadata.files)]
    metadata.notes += [
        f"{path.name} writes {name!r} for the file {file!r}" for name, file in spelt.items()
    ]
    if ignored:
        metadata.notes.append(f"{ignored} rows have votes and a label: their labels were ignored")
    return metadata


def _numbered(rows: list[dict[str, Any]]) -> Iterator[tuple[int, dict[str, Any]]]:
    return enumerate(rows, start=1)


def _joined(
    given: dict[tuple[str, str, datetime | None], dict[str, None]],
) -> dict[tuple[str, str, datetime | None], dict[str, None]]:
    """Join answers without a time to the first of their rater about the image."""
    first: dict[tuple[str, str], datetime] = {}
    for name, rater, at in given:
        if at is not None:
            first[name, rater] = min(at, first.get((name, rater), at))
    joined: dict[tuple[str, str, datetime | None], dict[str, None]] = {}
    for (name, rater, at), answers in given.items():
        joined.setdefault((name, rater, at or first.get((name, rater))), {}).update(answers)
    return joined


def _by_time(item: tuple[tuple[str, str, datetime | None], Any]) -> tuple[str, str, float]:
    name, rater, at = item[0]
    return name, rater, at.timestamp() if at else 0.0


def _spellings(folder: Path, listed: list[str]) -> dict[str, str]:
    """Return listed names that are spelt differently on disk, and their files."""
    absent = [name for name in dict.fromkeys(listed) if not _exists(folder / name)]
    if not absent:
        return {}
    files = {
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()
    } - set(listed)  # fmt: skip
    return names.pair(absent, files)[0]


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except ValueError:  # a NUL in the name
        return True


def _declare(known: dict[str, str | None], declared: dict[str, str | None]) -> None:
    """Add another row's facts of an image; the strictest terms count."""
    terms = strictest_terms(known, declared)
    known |= {key: value for key, value in declared.items() if value} | terms


def _retests(votes: list[SourceVote]) -> list[str]:
    """Return a remark on raters who answered an image more than once."""
    asked: dict[tuple[str, str], list[SourceVote]] = {}
    for vote in votes:
        asked.setdefault((vote.file_name, vote.rater), []).append(vote)
    pairs = [
        set(first.answers) == set(second.answers)
        for group in asked.values()
        for first, second in pairwise(group)
    ]
    if not pairs:
        return []
    return [
        f"{len(pairs)} answers are a rater's second about an image: the later one counts; "
        f"test-retest agreement {sum(pairs) / len(pairs):.2f}"
    ]


def _unreadable_consents(files: dict[str, dict[str, str | None]]) -> list[str]:
    """Return a remark per statement of consent that is not understood."""
    found = consent.unreadable((name, one.get("consent")) for name, one in files.items())
    return [
        f"consent {text!r} is not understood: {len(named)} images stay out of releases "
        f"({', '.join(named[:_SHOWN])}{', …' if len(named) > _SHOWN else ''}); write yes, no, or "
        "the last day"
        for text, named in sorted(found.items())
    ]


def _find(folder: Path) -> Path:
    found = [folder / name for name in NAMES if (folder / name).is_file()]
    if len(found) != 1:
        raise SettingsError(
            f"{folder} needs exactly one of {', '.join(NAMES)}",
            got=" and ".join(path.name for path in found) or "none of them",
            hint="write one row per image with file_name and label, or votes, or rater_id "
            "and label",
        )
    return found[0]


def _rows(
    path: Path, label_column: str | None = None
) -> tuple[list[dict[str, Any]], set[str], list[str]]:
    """Return the rows by our names of columns, the columns, and remarks.

    Raises:
        SettingsError: the file cannot be read, or has no column for the images.
    """
    known = dict(sidecar.METADATA_COLUMNS)
    if label_column is not None:
        known["label"] = (sidecar.plain_name(label_column),)
    if path.suffix == ".csv":
        table = sidecar.read_csv(path, known)
        rows: list[dict[str, Any]] = [dict(row) for row in table.rows]
        columns, notes = set(table.columns), table.notes
    else:
        raw = raw_rows(path)
        header = list(dict.fromkeys(str(key) for row in raw for key in row))
        matched, notes = sidecar.match_columns(header, known, path=path)
        rows = [{matched[key]: row[key] for key in row if key in matched} for row in raw]
        columns = set(matched.values())
    if "file_name" not in columns:
        raise SettingsError(
            f"{path.name} lacks a column file_name",
            got="; ".join(notes) or "no row",
            hint="name the column of the images file_name",
        )
    if label_column is not None and "label" not in columns:
        raise SettingsError(
            f"{path.name} has no such column",
            got=f"{label_column!r}",
            hint="correct --label-column",
        )
    return rows, columns, notes


def raw_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a metadata file by its own column names.

    Raises:
        SettingsError: the file cannot be read.
    """
    if path.suffix == ".csv":
        names_as_they_are = {name: (name,) for name in text.header(path)}
        return [dict(row) for row in sidecar.read_csv(path, names_as_they_are).rows]
    return _json_rows(path) if path.suffix == ".jsonl" else _parquet_rows(path)


def _json_rows(path: Path) -> list[dict[str, Any]]:
    try:
        text = sidecar.read_bytes(path).decode("utf-8-sig")
        rows = [json.loads(line) for line in names.json_lines(text)]
        if not all(isinstance(row, dict) for row in rows):
            raise ValueError("a line that is no JSON object")
    except ValueError as error:
        raise _unreadable(path, error) from None
    return rows


def _parquet_rows(path: Path) -> list[dict[str, Any]]:
    import polars as pl

    try:
        return pl.read_parquet(path, glob=False).to_dicts()
    except (pl.exceptions.PolarsError, OSError, ValueError) as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> SettingsError:
    return SettingsError(
        f"{path.name} cannot be read",
        got=str(error).splitlines()[0],
        hint=f"write {path} again",
    )


def _file_name(row: dict[str, Any], *, path: Path, number: int) -> str:
    name = _text(row.get("file_name"))
    pure = PurePosixPath((name or "/").replace("\\", "/"))
    if pure.is_absolute() or ".." in pure.parts:
        raise SettingsError(
            f"{path.name}, row {number}: the name is not a file below the folder",
            got=repr(name),
            hint="name images by their path from the metadata file",
        )
    return str(pure)


def _votes(row: dict[str, Any], *, name: str, path: Path, number: int) -> Iterator[tuple[str, str]]:
    """Yield (rater, label); the rater is empty where none is named."""
    if row.get("votes"):
        counted = counts(row["votes"], path=path, number=number)
        seats = [label for label, count in sorted(counted.items()) for _ in range(count)]
        # Shuffled: otherwise the first seat would prefer labels early in the alphabet.
        Random(name.encode("utf-8", "surrogatepass")).shuffle(seats)
        yield from ((f"seat-{seat:02d}", label) for seat, label in enumerate(seats))
    elif label := _text(row.get("label")):
        yield _text(row.get("rater_id")) or "", label


def counts(votes: Any, *, path: Path, number: int) -> dict[str, int]:
    """Return label to number of votes of a cell.

    Raises:
        SettingsError: it is no such map.
    """
    try:
        counted = json.loads(votes) if isinstance(votes, str) else votes
        if isinstance(counted, list):
            # Polars reads a Parquet map as a list of pairs.
            counted = {pair["key"]: pair["value"] for pair in counted}
        # A struct has every field in every row; null means no vote.
        given = {str(label): count or 0 for label, count in counted.items()}
        whole = {label: int(count) for label, count in given.items()}
        if any(count < 0 or count != given[label] for label, count in whole.items()):
            raise ValueError(counted)
        if sum(whole.values()) > MAX_VOTES:
            raise ValueError(counted)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
        raise SettingsError(
            f"The votes in row {number} of {path.name} are not a map from expression to whole "
            f"numbers with a sum of at most {MAX_VOTES}",
            got=repr(votes)[:80],
            hint='write for example {"happiness": 7, "neutral": 3}',
        ) from None
    return whole


def _time(value: Any, *, path: Path, number: int) -> datetime | None:
    if value is None or value == "":
        return None
    try:
        time = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
        return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise SettingsError(
            f"created_at in row {number} of {path.name} is not an ISO 8601 time",
            got=repr(value),
            hint="write 2026-01-31T12:00:00Z, or leave the column out",
        ) from None


def _text(value: Any) -> str | None:
    return (str(value).strip() or None) if value is not None else None


def _check(
    unknown: Counter[str],
    given: dict[tuple[str, str, datetime | None], dict[str, None]],
    path: Path,
    words: Words,
) -> None:
    if unknown and not given:
        listed = ", ".join(f"{label!r} ({n})" for label, n in unknown.most_common(_SHOWN))
        more = f" and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
        raise SettingsError(
            f"{path.name} has no label that is one of {words.known()} or a usual synonym",
            got=f"{listed}{more} in {path.name}",
            hint="name them with --map WORD=ANSWER, or another --label-set",
        )
    for (name, rater, _), answers in given.items():
        if not rater and len(answers) > 1:
            raise SettingsError(
                f"An image without rater_id has several labels in {path.name}",
                got=f"{', '.join(answers)} for {name}",
                hint="add rater_id, or give the counts as votes",
            )
