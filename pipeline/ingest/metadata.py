"""Read labels of a dataset from ``metadata.(csv|jsonl|parquet)``."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from random import Random
from typing import Any

from warehouse.errors import SettingsError
from warehouse.vocabulary import ANSWERS, canonical

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
        answers: canonical names in the vocabulary's order.
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
        votes: by image and rater.
        notes: remarks for the user about how rows were read.
    """

    path: Path
    files: dict[str, dict[str, str | None]] = field(default_factory=dict)
    votes: list[SourceVote] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read(folder: Path) -> Metadata:
    """Read the metadata file of a folder.

    Each image (``file_name``) has ``label``; or ``votes``, a map from expression to count (in CSV
    as JSON text); or rows of ``rater_id, label``, one per vote. Synonyms of expressions are
    known. ``subject_id``, ``licence``, ``consent`` and ``created_at`` (ISO 8601) are optional.
    In a row with both votes and a label the votes count.

    Raises:
        SettingsError: there is not exactly one such file, ``file_name`` is missing, labels are
            unknown (all are listed), a count is not a number, or an image without rater has two
            labels.
    """
    path = _find(folder)
    metadata = Metadata(path)
    unknown: Counter[str] = Counter()
    given: dict[tuple[str, str], dict[str, None]] = {}
    times: dict[tuple[str, str], datetime] = {}
    ignored = 0
    for number, row in enumerate(_rows(path), start=1):
        name = _file_name(row, path=path, number=number)
        declared = {key: _text(row.get(key)) for key in DECLARED}
        known = metadata.files.setdefault(name, declared)
        known.update({key: value for key, value in declared.items() if value})
        ignored += bool(_text(row.get("label")) and row.get("votes"))
        for rater, label in _votes(row, name=name, path=path, number=number):
            try:
                answer = canonical(label)
            except KeyError:
                unknown[label] += 1
                continue
            given.setdefault((name, rater), {})[answer] = None
            if at := _time(row.get("created_at"), path=path, number=number):
                times[name, rater] = at
    _check(unknown, given, path)
    for (name, rater), answers in sorted(given.items()):
        ordered = tuple(sorted(answers, key=ANSWERS.index))
        metadata.votes.append(SourceVote(name, rater or "label", ordered, times.get((name, rater))))
    if ignored:
        metadata.notes.append(f"{ignored} rows have votes and a label: their labels were ignored")
    return metadata


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


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    import polars as pl

    try:
        if path.suffix == ".jsonl":
            lines = path.read_text(encoding="utf-8-sig").splitlines()
            rows: Iterable[dict[str, Any]] = [json.loads(line) for line in lines if line.strip()]
            if not all(isinstance(row, dict) for row in rows):
                raise ValueError("a line that is no JSON object")
            columns = {key for row in rows for key in row}
        else:
            frame = (
                pl.read_csv(path, infer_schema=False)
                if path.suffix == ".csv"
                else pl.read_parquet(path, glob=False)
            )
            rows, columns = frame.iter_rows(named=True), set(frame.columns)
    except (pl.exceptions.PolarsError, OSError, ValueError, AttributeError) as error:
        raise SettingsError(
            f"{path.name} cannot be read",
            got=str(error).splitlines()[0],
            hint=f"write {path} again",
        ) from None
    if "file_name" not in columns:
        raise SettingsError(
            f"{path.name} lacks a column file_name",
            got=f"columns {', '.join(sorted(columns)) or 'none'}",
            hint="name the column of the images file_name",
        )
    yield from rows


def _file_name(row: dict[str, Any], *, path: Path, number: int) -> str:
    name = _text(row.get("file_name"))
    pure = PurePosixPath(name or "/")
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
        counts = _counts(row["votes"], path=path, number=number)
        seats = [label for label, count in sorted(counts.items()) for _ in range(count)]
        # Shuffled: otherwise the first seat would prefer labels early in the alphabet.
        Random(name.encode("utf-8", "surrogatepass")).shuffle(seats)
        yield from ((f"seat-{seat:02d}", label) for seat, label in enumerate(seats))
    elif label := _text(row.get("label")):
        yield _text(row.get("rater_id")) or "", label


def _counts(votes: Any, *, path: Path, number: int) -> dict[str, int]:
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
    unknown: Counter[str], given: dict[tuple[str, str], dict[str, None]], path: Path
) -> None:
    if unknown:
        listed = ", ".join(f"{label!r} ({n})" for label, n in unknown.most_common(_SHOWN))
        more = f" and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
        raise SettingsError(
            f"{path.name} has labels other than {', '.join(ANSWERS)} and their usual synonyms",
            got=f"{listed}{more} in {path.name}",
            hint="rename them in that file",
        )
    for (name, rater), answers in given.items():
        if not rater and len(answers) > 1:
            raise SettingsError(
                f"An image without rater_id has several labels in {path.name}",
                got=f"{', '.join(answers)} for {name}",
                hint="add rater_id, or give the counts as votes",
            )
