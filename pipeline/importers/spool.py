"""Turn samples into the files, the listing and the votes of a batch.

Nothing is visible before every sample was read: pictures that a data set holds inside tables are
written into a hidden folder of the inbox and moved at the end.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import polars as pl

from pipeline.faces.labelled import KEY, Labelled
from pipeline.importers import own
from pipeline.importers.samples import Dataset, Sample, Vote
from pipeline.ingest import names
from warehouse.errors import SettingsError
from warehouse.ids import sha256_of
from warehouse.storage.home import Home
from warehouse.storage.schema import FLOAT, INTENSITIES, TEXT, TIME
from warehouse.terms_of_copies import strictest_terms

SOURCE = "imported"
PICTURES = "pictures"
"""Folder of a batch for pictures that lay in tables."""

VOTES: dict[str, Any] = {
    "uri": TEXT, "file_name": TEXT, "box": pl.List(FLOAT),
    "rater": TEXT, "answers": pl.List(TEXT), "compounds": pl.List(TEXT), "at": TIME,
    "valence": FLOAT, "arousal": FLOAT, "au": INTENSITIES,
}  # fmt: skip
"""Columns of the votes of a data set, in the order of its files."""

_CHUNK = 20_000
_BAD = {"", ".", ".."}


@dataclass
class Spooled:
    """A data set that was read.

    Attributes:
        lines: address to its line of the listing.
        votes: frames of ``VOTES``.
        counts: numbers for the report.
        subjects: subject to the splits that name it.
    """

    lines: dict[str, dict[str, Any]] = field(default_factory=dict)
    votes: list[pl.DataFrame] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    splits: dict[str, str] = field(default_factory=dict)
    subjects: dict[str, set[str]] = field(default_factory=dict)
    files: list[tuple[Path, Path]] = field(default_factory=list)

    @property
    def n_votes(self) -> int:
        return sum(frame.height for frame in self.votes)


class Spool:
    """Reads the samples of a data set into a batch.

    Pictures that lay in tables are staged in a hidden folder, which ``close`` removes.
    """

    def __init__(self, home: Home, batch: str, dataset: Dataset) -> None:
        self.home, self.batch, self.dataset = home, batch, dataset
        self.folder = home.inbox / batch
        self.staging = home.inbox / f".import-{batch}"
        self.done = Spooled()
        self._rows: list[tuple[Any, ...]] = []
        self._boxes: dict[str, dict[tuple[float, ...], None]] = {}
        self._absent: list[str] = []
        stated = own.read(dataset.path)
        self._stated = stated.facts if stated else {}

    def read(self, samples: Iterator[Sample]) -> Spooled:
        """Read all samples.

        Raises:
            SettingsError: no sample has a vote, or none of the listed files is there.
        """
        shutil.rmtree(self.staging, ignore_errors=True)
        for sample in samples:
            self._add(sample)
        self._flush()
        self._check()
        for uri, boxes in self._boxes.items():
            line = self.done.lines[uri]
            line[KEY]["boxes"] = [list(box) for box in boxes]
        return self.done

    def publish(self) -> None:
        """Move the staged files to the batch."""
        for draft, place in self.done.files:
            place.parent.mkdir(parents=True, exist_ok=True)
            os.replace(draft, place)

    def close(self) -> None:
        """Remove what was staged."""
        shutil.rmtree(self.staging, ignore_errors=True)

    def _add(self, sample: Sample) -> None:
        done = self.done
        done.counts["samples"] += 1
        uri = self._uri(sample)
        facts = self._stated.get(sample.name, {})
        line = done.lines.get(uri)
        declared = {
            "subject_id": sample.subject or facts.get("subject_id"),
            "licence": sample.licence or facts.get("licence"),
            "consent": sample.consent or facts.get("consent"),
        }
        if line is None:
            if sample.path is None and sample.data is None:
                self._absent.append(sample.name)
            labels = Labelled(whole=True, drop=self.dataset.options.drop)
            done.lines[uri] = {
                "uri": uri, "file_name": sample.name, **declared, "source": SOURCE,
                KEY: labels.facts(),
            }  # fmt: skip
        elif any(declared.values()):
            self._declare(line, declared)
        if sample.split:
            self._split(sample, uri, declared["subject_id"])
        if sample.box is not None:
            self._boxes.setdefault(uri, {})[sample.box] = None
        for vote in sample.votes:
            self._vote(sample, uri, vote)

    def _declare(self, line: dict[str, Any], declared: Mapping[str, str | None]) -> None:
        """Add another sample's facts of a file; the strictest terms count."""
        known = {name: line[name] for name in declared}
        if known["subject_id"] and declared["subject_id"] not in (None, known["subject_id"]):
            self.dataset.leave("pictures show several subjects, so none is declared",
                               line["file_name"])  # fmt: skip
            line["subject_id"] = None
        else:
            line["subject_id"] = known["subject_id"] or declared["subject_id"]
        terms = strictest_terms(known, declared)
        for name in ("licence", "consent"):
            line[name] = terms.get(name) or known[name] or declared[name]

    def _split(self, sample: Sample, uri: str, subject: str | None) -> None:
        assert sample.split is not None
        before = self.done.splits.setdefault(uri, sample.split)
        if before != sample.split:
            self.dataset.leave("files are listed in two splits; the first counts", sample.name)
        if subject:
            self.done.subjects.setdefault(subject, set()).add(sample.split)

    def _vote(self, sample: Sample, uri: str, vote: Vote) -> None:
        read = self.dataset.words.read(vote.labels, answered=vote.answered)
        for word in read.strange:
            self.dataset.leave("labels that are no answer", word)
        said = read.answers or vote.valence is not None or vote.arousal is not None or vote.units
        if not said:
            return
        units = [{"unit": unit, "intensity": level} for unit, level in vote.units]
        self._rows.append(
            # Tables hold UTF-8; names on old disks may not be.
            (names.escaped(uri), names.escaped(sample.name), sample.box and list(sample.box),
             names.escaped(vote.rater), list(read.answers), list(read.compounds), vote.at,
             vote.valence, vote.arousal, units or None)
        )  # fmt: skip
        if len(self._rows) >= _CHUNK:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            frame = pl.DataFrame(self._rows, schema=VOTES, orient="row")
            self.done.votes.append(frame)
            self._rows = []

    def _uri(self, sample: Sample) -> str:
        """Return the address of the file of a sample; stage it if it is none yet."""
        if sample.data is not None:
            return self._stage(f"{PICTURES}/{_safe(sample.name)}", sample.data)
        if sample.path is not None:
            return str(sample.path)
        # Not there. A list must not choose other files of this machine either.
        place = Path(os.path.normpath(self.dataset.path / sample.name))
        inside = place.is_relative_to(self.dataset.path)
        return str(place if inside else self.dataset.path / _safe(sample.name))

    def _stage(self, name: str, data: bytes) -> str:
        place = self.folder / name
        if str(place) not in self.done.lines and not _holds(place, data):
            draft = self.staging / name
            draft.parent.mkdir(parents=True, exist_ok=True)
            draft.write_bytes(data)
            self.done.files.append((draft, place))
        return str(place)

    def _check(self) -> None:
        done, absent = self.done, len(self._absent)
        if not done.lines:
            raise SettingsError(
                "There is no image to import",
                got=f"none below {self.dataset.path}" + self._why(),
                hint="name the folder that holds the pictures and their labels",
            )
        if absent and absent == len(done.lines):
            raise SettingsError(
                "None of the listed files is there",
                got=f"{absent} are missing, such as {names.escaped(self._absent[0])}",
                hint="put the pictures beside the list, as the data set comes",
            )
        if not done.n_votes:
            raise SettingsError(
                "The data set labels no picture",
                got=f"{done.counts['samples']} samples" + self._why(),
                hint=f"name its words with --map WORD=ANSWER ({self.dataset.words.known()}), "
                "another --label-set or --label-column; pictures without labels are taken by "
                "`risorius ingest`",
            )
        for name in self._absent:
            self.dataset.leave("listed files are not there", name)

    def _why(self) -> str:
        return "".join(f"; {text}" for text in self.dataset.described())


def _holds(path: Path, data: bytes) -> bool:
    return path.is_file() and path.stat().st_size == len(data) and path.read_bytes() == data


def _safe(name: str) -> str:
    """Return a relative path that stays below its folder."""
    parts = [names.escaped(part)[:200] for part in PurePosixPath(name.replace("\\", "/")).parts]
    kept = [part.lstrip(".") or "x" for part in parts if part.strip("/") not in _BAD]
    return "/".join(kept) or "x"


def line_text(line: Mapping[str, Any]) -> str:
    """Return a line of the listing."""
    return json.dumps(line, sort_keys=True)


def digest(*parts: str) -> int:
    """Return a number that identifies a vote of an import."""
    return int(sha256_of(["|".join(parts).encode("utf-8", "surrogatepass")])[:15], 16)
