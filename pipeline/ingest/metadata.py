"""What a dataset from elsewhere says of its pictures: ``metadata.(csv|jsonl|parquet)``."""

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
MOST_VOTES = 10_000
"""On one picture; each becomes a row, and a slip of the pen must not become a billion of them."""

_SHOWN = 5


@dataclass(frozen=True)
class Said:
    """One rater's answer about one picture.

    Attributes:
        rater: the dataset's own name for the rater, or ``seat-<n>`` where it only counts votes:
            who sat there is unknown, and another person may sit there at the next picture.
        answers: canonical names, sorted in the vocabulary's order.
        at: when, in UTC, if the dataset says so.
    """

    file_name: str
    rater: str
    answers: tuple[str, ...]
    at: datetime | None = None


@dataclass
class Metadata:
    """Everything a metadata file says.

    Attributes:
        files: picture to its declared ``subject_id, licence, consent``; every picture named.
        said: the votes, by picture and rater.
        notes: what was read otherwise than one might think.
    """

    path: Path
    files: dict[str, dict[str, str | None]] = field(default_factory=dict)
    said: list[Said] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read(folder: Path) -> Metadata:
    """The metadata file of a folder.

    Per picture (``file_name``) any of: ``label``; ``votes``, a map from expression to count (in
    CSV as JSON text); or rows of ``rater_id, label``, one per vote. Usual synonyms are known.
    ``subject_id``, ``licence``, ``consent`` and ``created_at`` (ISO 8601) may stand beside them.
    Where a row has both votes and a label, the votes count and the label is left.

    Raises:
        SettingsError: no such file or several, no ``file_name``, a label that nothing known
            matches (all of them are listed), a count that is none, or two answers of a picture
            that names no rater.
    """
    path = _found(folder)
    metadata = Metadata(path)
    unknown: Counter[str] = Counter()
    given: dict[tuple[str, str], dict[str, None]] = {}
    times: dict[tuple[str, str], datetime] = {}
    beside = 0
    for number, row in enumerate(_rows(path), start=1):
        name = _file_name(row, path=path, number=number)
        declared = {key: _text(row.get(key)) for key in DECLARED}
        known = metadata.files.setdefault(name, declared)
        known.update({key: value for key, value in declared.items() if value})
        beside += bool(_text(row.get("label")) and row.get("votes"))
        for rater, label in _votes(row, name=name, path=path, number=number):
            try:
                answer = canonical(label)
            except KeyError:
                unknown[label] += 1
                continue
            given.setdefault((name, rater), {})[answer] = None
            if at := _moment(row.get("created_at"), path=path, number=number):
                times[name, rater] = at
    _refuse(unknown, path)
    _refuse_contradictions(given, path)
    for (name, rater), answers in sorted(given.items()):
        ordered = tuple(sorted(answers, key=ANSWERS.index))
        metadata.said.append(Said(name, rater or "label", ordered, times.get((name, rater))))
    if beside:
        metadata.notes.append(f"{beside} rows have votes and a label: their labels were left")
    return metadata


def _found(folder: Path) -> Path:
    found = [folder / name for name in NAMES if (folder / name).is_file()]
    if len(found) != 1:
        raise SettingsError(
            f"one of {', '.join(NAMES)} in {folder}",
            got=" and ".join(path.name for path in found) or "none of them",
            hint="write one row per picture with file_name and label, or votes, or rater_id "
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
            f"a readable {path.name}", got=str(error).splitlines()[0], hint=f"write {path} again"
        ) from None
    if "file_name" not in columns:
        raise SettingsError(
            f"a column file_name in {path.name}",
            got=f"columns {', '.join(sorted(columns)) or 'none'}",
            hint="name the column of the pictures file_name",
        )
    yield from rows


def _file_name(row: dict[str, Any], *, path: Path, number: int) -> str:
    name = _text(row.get("file_name"))
    pure = PurePosixPath(name or "/")
    if pure.is_absolute() or ".." in pure.parts:
        raise SettingsError(
            f"a file below the folder in row {number} of {path.name}",
            got=repr(name),
            hint="name pictures by their path from the metadata file",
        )
    return str(pure)


def _votes(row: dict[str, Any], *, name: str, path: Path, number: int) -> Iterator[tuple[str, str]]:
    """Pairs of rater and label; the rater is empty where none is named."""
    if row.get("votes"):
        counts = _counts(row["votes"], path=path, number=number)
        seats = [label for label, count in sorted(counts.items()) for _ in range(count)]
        # Shuffled, or the first seat would seem to prefer what comes first in the alphabet.
        Random(name).shuffle(seats)
        yield from ((f"seat-{seat:02d}", label) for seat, label in enumerate(seats))
    elif label := _text(row.get("label")):
        yield _text(row.get("rater_id")) or "", label


def _counts(votes: Any, *, path: Path, number: int) -> dict[str, int]:
    try:
        counted = json.loads(votes) if isinstance(votes, str) else votes
        if isinstance(counted, list):
            # A Parquet map comes as pairs.
            counted = {pair["key"]: pair["value"] for pair in counted}
        # A struct has every field in every row; null there is no vote.
        given = {str(label): count or 0 for label, count in counted.items()}
        whole = {label: int(count) for label, count in given.items()}
        if any(count < 0 or count != given[label] for label, count in whole.items()):
            raise ValueError(counted)
        if sum(whole.values()) > MOST_VOTES:
            raise ValueError(counted)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
        raise SettingsError(
            f"votes as a map from expression to a whole number, {MOST_VOTES} at most together, "
            f"in row {number} of {path.name}",
            got=repr(votes)[:80],
            hint='write for example {"happiness": 7, "neutral": 3}',
        ) from None
    return whole


def _moment(value: Any, *, path: Path, number: int) -> datetime | None:
    if value is None or value == "":
        return None
    try:
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise SettingsError(
            f"created_at as ISO 8601 in row {number} of {path.name}",
            got=repr(value),
            hint="write 2026-01-31T12:00:00Z, or leave the column out",
        ) from None


def _text(value: Any) -> str | None:
    return (str(value).strip() or None) if value is not None else None


def _refuse(unknown: Counter[str], path: Path) -> None:
    if unknown:
        listed = ", ".join(f"{label!r} ({n})" for label, n in unknown.most_common(_SHOWN))
        more = f" and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
        raise SettingsError(
            f"labels out of {', '.join(ANSWERS)} or their usual synonyms",
            got=f"{listed}{more} in {path.name}",
            hint="rename them in that file",
        )


def _refuse_contradictions(given: dict[tuple[str, str], dict[str, None]], path: Path) -> None:
    for (name, rater), answers in given.items():
        if not rater and len(answers) > 1:
            raise SettingsError(
                f"one label of a picture without rater_id in {path.name}",
                got=f"{', '.join(answers)} for {name}",
                hint="add rater_id, or give the counts as votes",
            )
