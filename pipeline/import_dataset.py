"""Import a labelled dataset as faces and annotations."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from pipeline import importers, progress, runs
from pipeline.faces import labelled
from pipeline.importers import own, spool
from pipeline.importers.samples import Dataset, Folder, Format, Options
from pipeline.importers.spool import SOURCE, Spool, Spooled
from pipeline.importers.words import EXPRESSION_SET, Words
from pipeline.ingest import batches, names
from pipeline.ingest.manifest import LISTING
from pipeline.settings import Settings
from warehouse.errors import SettingsError
from warehouse.ids import batch_from, check_batch, pseudonym, sha256_of
from warehouse.storage import atomic, locks, tables
from warehouse.storage.home import Home
from warehouse.storage.schema import TABLES

if TYPE_CHECKING:
    from rich.console import Console

SPLIT = "split"
"""Field of the table ``sessions`` that holds the split a data set declares for a file."""

_STATED_BY = "source"
_SHOWN = 5


@dataclass(frozen=True)
class ImportReport:
    """Outcome of an import.

    Attributes:
        counts: numbers of votes and images by description. ``new``, ``moved to another face``
            and ``taken back`` count the events written by this run.
        notes: remarks about how the dataset was read.
    """

    summary: batches.Summary
    counts: dict[str, int]
    notes: list[str] = field(default_factory=list)
    format: str = ""

    @property
    def facts(self) -> dict[str, Any]:
        """The report as a JSON document."""
        notes = [*self.summary.notes, *self.notes]
        return {**self.summary.facts, "format": self.format, **self.counts, "notes": notes}

    def show(self, console: Console) -> None:
        """Print the report for people."""
        from rich.markup import escape

        self.summary.show(console)
        for name, value in self.counts.items():
            console.print(f"{name:<40} {value}")
        for note in self.notes:
            console.print(escape(note))


@dataclass
class Recorded:
    """Votes of an import that became events.

    Attributes:
        events: kind of event to number.
        placed: votes on a kept face.
        shared: pictures of several faces, whose label went to the largest.
    """

    events: Counter[str] = field(default_factory=Counter)
    placed: int = 0
    shared: int = 0

    @property
    def height(self) -> int:
        """Number of events."""
        return self.events.total()


def run(
    settings: Settings,
    folder: str,
    *,
    name: str | None = None,
    format_name: str = importers.AUTO,
    options: Options | None = None,
) -> ImportReport:
    """Ingest the files of a dataset and record their votes.

    Images go through the standard pipeline: detection, alignment, quality gate. The votes of an
    image belong to its annotated face, or else to its largest. A second run repeats nothing; if
    the dataset changed, the differences become new events.

    Args:
        name: of the batch; default: the name of the folder.
        format_name: a key of ``importers.FORMATS``, or ``auto``.

    Raises:
        SettingsError: the folder, its content or the name is invalid. Nothing is written then.
    """
    place = Path(folder).expanduser()
    if not place.is_dir():
        raise SettingsError("The dataset is not a folder", got=folder, hint="check the path")
    home, place = settings.place, place.resolve()
    batch = check_batch(name) if name else batch_from(place.name)
    given = options or Options()
    found, why = importers.choose(Folder(place), format_name)
    with locks.writing(home.root, waiting=progress.waiting):
        dataset, read = spooled(home, place, found, given, batch=batch)
        runs.add_batch(home, batch)
        runs.materialize(home, "ingest", batch=batch)
        recorded = record(home, read, dataset.words, batch=batch)
        leaks = record_splits(home, read, batch=batch)
        runs.materialize(home, "import_labels")
    labelled_files = {uri for frame in read.votes for uri in frame["uri"].unique()}
    return ImportReport(
        summary=batches.summary(home, batch),
        format=found.name,
        counts={
            "votes": read.n_votes,
            "votes on kept faces": recorded.placed,
            "votes on pictures without a kept face": read.n_votes - recorded.placed,
            "new": recorded.events["created"],
            "moved to another face": recorded.events["updated"],
            "taken back": recorded.events["deleted"],
            "pictures without a vote": len(
                {names.escaped(uri) for uri in read.lines} - labelled_files
            ),
        },
        notes=[
            f"format {found.name}: {why}",
            *_on_faces(home, batch, recorded),
            *dataset.described(),
            *_unused(dataset),
            *leaks,
            *linked_folders(place),
        ],
    )


def spooled(
    home: Home, place: Path, found: Format, options: Options, *, batch: str
) -> tuple[Dataset, Spooled]:
    """Read a dataset; write its pictures and its listing into the inbox.

    Raises:
        SettingsError: a file is damaged or foreign, nothing has a vote, or another dataset has
            the name of the batch. Nothing is written then.
    """
    stated = own.read(place)
    labels = found.labels
    if stated is not None and stated.labels and not options.label_set:
        labels = stated.labels
    words = Words(
        labels,
        label_set=options.label_set,
        label_map=options.label_map,
        words={**found.words, **(stated.numbers if stated and not options.label_set else {})},
    )
    _check_name(home, place, batch=batch)
    dataset = Dataset(Folder(place), options, words)
    reading = Spool(home, batch, dataset)
    try:
        read = reading.read(found.read(dataset))
        reading.publish()
    finally:
        reading.close()
    write_listing(home, place, read.lines, batch=batch)
    return dataset, read


def write_listing(
    home: Home, folder: Path, lines: Mapping[str, Mapping[str, Any]], *, batch: str
) -> None:
    """Write ``inbox/<batch>/sources.jsonl`` with every file of the dataset.

    Raises:
        SettingsError: a batch of that name exists and is not an import of this folder.
    """
    before = _check_name(home, folder, batch=batch)
    newest = {str(json.loads(line)["uri"]): line for line in before}
    newest |= {
        uri: spool.line_text({**line, "dataset": str(folder)}) for uri, line in lines.items()
    }
    listing = home.inbox / batch / LISTING
    text = "\n".join(newest[uri] for uri in sorted(newest)) + "\n"
    if not listing.is_file() or listing.read_text() != text:
        atomic.write_text(listing, text)


def _check_name(home: Home, folder: Path, *, batch: str) -> list[str]:
    """Return the lines of the listing of a batch, if it may be this import's.

    Two datasets often have a folder of one name, ``train`` or ``images``. A folder that moved
    continues its batch.
    """
    listing = home.inbox / batch / LISTING
    before = names.json_lines(listing.read_text()) if listing.exists() else []
    if any(f'"source": "{SOURCE}"' not in line for line in before):
        raise SettingsError(
            "Another batch has this name", got=repr(batch), hint="name the import with --name"
        )
    for line in before:
        found = json.loads(line)
        name = str(found.get("file_name") or "")
        stated = found.get("dataset")
        if stated is None and not str(found["uri"]).endswith(f"/{name}"):
            continue
        earlier = Path(str(stated or str(found["uri"]).removesuffix(f"/{name}")))
        if earlier != folder and earlier.is_dir():
            raise SettingsError(
                "Another dataset was imported under this name",
                got=f"{batch!r}, from {earlier}",
                hint="give this one a name that no other batch has with --name",
            )
    return before


def record(
    home: Home, read: Spooled, words: Words, *, batch: str, now: datetime | None = None
) -> Recorded:
    """Append the events that make ``annotations`` agree with the dataset."""
    from annotation.label_studio.event_log import later, standing_annotations

    project = _project(batch)
    known = tables.read(home, "annotations").filter(pl.col("project_id") == project)
    standing = standing_annotations(known, project)
    current = {
        number: (face, item)
        for number, face, item in standing.select("annotation_id", "face_id", "item_id").iter_rows()
    }
    last: Any = known["pulled_at"].max()
    now = now or datetime.now(UTC)
    stamp = {"pulled_at": later(now, last)}
    done, wanted = Recorded(), set[int]()
    places = _Places(home, batch)
    part = f"import-{batch}-{sha256_of([str(known.height).encode()])[:8]}"
    asked: set[tuple[str, ...]] = set()
    for number, frame in enumerate(read.votes):
        events = []
        for row in _annotations(home, frame, places, words, batch=batch, asked=asked):
            key = row["annotation_id"]
            if key in wanted:
                continue
            wanted.add(key)
            done.placed += row["item_id"] is not None
            if key not in current or current[key][1] != row["item_id"]:
                event = "updated" if key in current else "created"
                events.append({**row, **stamp, "event": event})
        _append(home, events, part=f"{part}-{number}" if number else part, done=done)
    removed = standing.filter(~pl.col("annotation_id").is_in(list(wanted)))
    deleted = [{**row, **stamp, "event": "deleted"} for row in removed.iter_rows(named=True)]
    _append(home, deleted, part=f"{part}-deleted", done=done)
    done.shared = len(places.shared)
    return done


def _append(home: Home, events: list[dict[str, Any]], *, part: str, done: Recorded) -> None:
    if events:
        frame = pl.DataFrame(events, schema=TABLES["annotations"].schema, orient="row")
        tables.write(home, "annotations", frame, part=part)
        done.events.update(row["event"] for row in events)


def _annotations(
    home: Home,
    votes: pl.DataFrame,
    places: _Places,
    words: Words,
    *,
    batch: str,
    asked: set[tuple[str, ...]],
) -> Iterator[dict[str, Any]]:
    """Yield rows of ``annotations`` without the event."""
    salt, project = home.salt(), _project(batch)
    for vote in votes.iter_rows(named=True):
        file, answers = vote["file_name"], vote["answers"]
        key = [batch, file, vote["rater"], *(vote["compounds"] or answers)]
        place = [str(vote["box"])] if vote["box"] is not None else []
        more = [str(vote[name]) for name in ("valence", "arousal", "au") if vote[name] is not None]
        key += [*place, *more]
        if (again := (file, vote["rater"], *place)) in asked:
            key.append(str(vote["at"]))  # a retest: another answer, even if the same
        asked.add(again)
        face, is_ours = places.face(vote), words.name == EXPRESSION_SET
        yield {
            "annotation_id": spool.digest(*key),
            "project_id": project,
            "face_id": face,
            "item_kind": "face",
            "item_id": face,
            "rater_id": _rater_id(vote["rater"], salt=salt, batch=batch),
            "rater_kind": "person",
            "answer": {
                "validity": "not_a_face" if answers == ["not_a_face"] else "face",
                "expressions": answers if is_ours else [],
                "valence": vote["valence"],
                "arousal": vote["arousal"],
            },
            "label_set": words.name,
            "labels": None if is_ours else answers,
            "compounds": vote["compounds"] or None if is_ours else None,
            "au": vote["au"],
            "answers": None,
            "was_cancelled": False,
            "saw_prediction": False,
            "created_at": vote["at"],
            "updated_at": vote["at"],
        }  # fmt: skip


def _rater_id(rater: str, *, salt: str, batch: str) -> str:
    """Return a pseudonym; names of seats identify no person and stay."""
    hidden = pseudonym("person", salt, f"{batch}|{rater}")
    if rater.startswith("seat-"):
        return hidden.replace("person-", f"person-{rater}-")
    return hidden


class _Places:
    """Which face of a batch a vote is about; duplicates share one."""

    def __init__(self, home: Home, batch: str) -> None:
        videos = tables.read(home, "videos", batch=batch).select("uri", "video_id")
        self._video = dict(videos.iter_rows())
        kept = (
            tables.scan(home, "faces")
            .filter(pl.col("verdict") == "kept")
            .select("video_id", "face_id", "bbox", "size_px")
            .collect()
            .join(videos.select("video_id").unique(), on="video_id", how="semi")
            .unique("face_id", maintain_order=True)
            .sort("size_px", "face_id", descending=[True, False])
        )
        first = kept.unique("video_id", keep="first", maintain_order=True)
        self._best = dict(first.select("video_id", "face_id").iter_rows())
        self._faces: dict[str, list[tuple[str, Any]]] = {}
        for video, face, bbox in kept.select("video_id", "face_id", "bbox").iter_rows():
            self._faces.setdefault(video, []).append((face, bbox))
        self.shared: set[str] = set()

    def face(self, vote: Mapping[str, Any]) -> str | None:
        """Return the face of a vote: at its box, else the largest."""
        video = self._video.get(vote["uri"])
        if video is None:
            return None
        if vote["box"] is not None:
            faces = self._faces.get(video, [])
            boxes = np.array([bbox for _, bbox in faces]).reshape(-1, 4)
            boxes[:, 2:] += boxes[:, :2]
            place = labelled.best(tuple(vote["box"]), boxes)
            return None if place is None else faces[place][0]
        if len(self._faces.get(video, ())) > 1:
            self.shared.add(video)
        return self._best.get(video)


def record_splits(home: Home, read: Spooled, *, batch: str) -> list[str]:
    """Write the declared splits to ``sessions``; return remarks about leaks.

    A release keeps a declared split unless a subject or a picture would be in two.
    """
    videos = tables.read(home, "videos", batch=batch).select("uri", "video_id", "verdict")
    found: dict[str, set[str]] = {}
    for uri, video, _ in videos.sort("verdict", "uri", descending=[True, False]).iter_rows():
        if (split := read.splits.get(uri)) is not None:
            found.setdefault(video, set()).add(split)
    rows = [
        {"video_id": video, "field": SPLIT, "value": next(iter(splits)), "stated_by": _STATED_BY,
         "batch": batch}
        for video, splits in sorted(found.items()) if len(splits) == 1
    ]  # fmt: skip
    part = f"splits-{batch}"
    if rows or part in tables.parts(home, "sessions"):
        frame = pl.DataFrame(rows, schema=TABLES["sessions"].schema, orient="row")
        tables.write(home, "sessions", frame, part=part)
    copies = sorted(video for video, splits in found.items() if len(splits) > 1)
    people = sorted(name for name, splits in read.subjects.items() if len(splits) > 1)
    said = []
    if rows:
        counted = sorted(Counter(row["value"] for row in rows).items())
        said.append("declared splits: " + ", ".join(f"{n} {split}" for split, n in counted))
    if people:
        said.append(
            f"the declared splits leak: {len(people)} subjects are in several "
            f"({', '.join(people[:_SHOWN])}{', …' if len(people) > _SHOWN else ''}); a release "
            "puts all of a subject into the split that has most of it"
        )
    if copies:
        said.append(
            f"the declared splits leak: {len(copies)} files are in several, as copies; a release "
            "puts them into one"
        )
    return said


def _on_faces(home: Home, batch: str, recorded: Recorded) -> list[str]:
    """Return remarks on faces that the gate would have dropped or not found."""
    faces = tables.read(home, "faces", batch=batch).filter(
        (pl.col("verdict") == "kept") & pl.col("reason").is_not_null()
    )
    flagged = Counter(faces["reason"])
    said = []
    whole = flagged.pop(labelled.WHOLE_FRAME, 0)
    boxed = flagged.pop(labelled.ANNOTATED_BOX, 0)
    if whole:
        said.append(f"{whole} frames show no face that was found: the whole frame is the face")
    if boxed:
        said.append(f"{boxed} annotated boxes hold no face that was found: the box is the face")
    if flagged:
        listed = ", ".join(f"{code} {n}" for code, n in flagged.most_common())
        said.append(
            f"{flagged.total()} labelled faces were kept though the gate doubts them ({listed}); "
            "--gate drop leaves them out"
        )
    if recorded.shared:
        said.append(
            f"{recorded.shared} pictures show several faces and name none: the label is that of "
            "the largest"
        )
    return said


def _unused(dataset: Dataset) -> Iterable[str]:
    if unused := dataset.words.unused():
        yield f"--map names words that never occur: {', '.join(unused)}"


def _project(batch: str) -> int:
    # Negative, because Label Studio numbers its projects from 1.
    return -1 - int(sha256_of([f"import|{batch}".encode()])[:12], 16)


def linked_folders(folder: Path) -> list[str]:
    """Return a note about the links to folders, which are not followed."""
    links = sorted(
        names.escaped(str((Path(top) / name).relative_to(folder)))
        for top, folders, _ in os.walk(folder)
        for name in folders
        if not name.startswith(".") and (Path(top) / name).is_symlink()
    )
    if not links:
        return []
    return [f"{len(links)} linked folders were not followed ({', '.join(links)}); copy them here"]
