"""A labelled dataset from elsewhere, into the tables like anything else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from pipeline import runs
from pipeline.ingest import batches, metadata
from pipeline.ingest.batches import Summary
from pipeline.ingest.metadata import Metadata, Said
from pipeline.settings import Settings
from warehouse.errors import SettingsError
from warehouse.ids import batch_from, check_batch, pseudonym, sha256_of
from warehouse.storage import atomic, tables
from warehouse.storage.home import Home
from warehouse.storage.schema import TABLES

if TYPE_CHECKING:
    from rich.console import Console

SOURCE = "imported"
_PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")


@dataclass(frozen=True)
class Imported:
    """What became of a dataset.

    Attributes:
        votes: read from the metadata; ``on_faces`` of them belong to a kept face, the others to
            pictures without one. ``new``, ``moved`` and ``gone``: events written now.
        unlabelled: pictures without any vote; they can be labelled here.
    """

    summary: Summary
    votes: int
    on_faces: int
    new: int
    moved: int
    gone: int
    unlabelled: int
    notes: list[str] = field(default_factory=list)

    @property
    def facts(self) -> dict[str, Any]:
        return {**self.summary.facts, **self._counts, "notes": self.notes}

    @property
    def _counts(self) -> dict[str, int]:
        return {
            "votes": self.votes,
            "votes on kept faces": self.on_faces,
            "votes on pictures without a kept face": self.votes - self.on_faces,
            "new": self.new,
            "moved to another face": self.moved,
            "taken back": self.gone,
            "pictures without a vote": self.unlabelled,
        }

    def show(self, console: Console) -> None:
        self.summary.show(console)
        for name, value in self._counts.items():
            console.print(f"{name:<40} {value}")
        for note in self.notes:
            console.print(note)


def run(settings: Settings, folder: str, *, name: str | None = None) -> Imported:
    """Pictures into faces, their votes into ``annotations``, both into soft labels.

    A picture takes the road of every other: found, aligned, gated; one without a usable face ends
    with its verdict. Its votes go to its best kept face. Run it again and nothing is repeated;
    with other metadata, what changed becomes new events.

    Raises:
        SettingsError: the folder, its metadata or the name do not fit.
    """
    place = Path(folder).expanduser()
    if not place.is_dir():
        raise SettingsError("a folder of pictures with metadata", got=folder, hint="check the path")
    home, place = settings.place, place.resolve()
    batch = check_batch(name) if name else batch_from(place.name)
    said = metadata.read(place)
    enlist(home, place, said, batch=batch)
    runs.add_batch(home, batch)
    runs.materialize(home, "ingest", batch=batch)
    events, on_faces = record(home, place, said, batch=batch)
    runs.materialize(home, "weigh")
    kinds = events["event"].value_counts()
    count = dict(zip(kinds["event"], kinds["count"], strict=True))
    labelled = {one.file_name for one in said.said}
    return Imported(
        summary=batches.summary(home, batch),
        votes=len(said.said),
        on_faces=on_faces,
        new=count.get("created", 0),
        moved=count.get("updated", 0),
        gone=count.get("deleted", 0),
        unlabelled=len(said.files.keys() - labelled) + len(_unnamed(place, said)),
        notes=said.notes,
    )


def enlist(home: Home, folder: Path, said: Metadata, *, batch: str) -> None:
    """Write ``inbox/<batch>/sources.jsonl``: every picture named, and those nobody names.

    Raises:
        SettingsError: the batch holds something else already.
    """
    listing = home.inbox / batch / "sources.jsonl"
    before = listing.read_text().splitlines() if listing.exists() else []
    if any(f'"source": "{SOURCE}"' not in line for line in before):
        raise SettingsError(
            "a name no other batch has", got=repr(batch), hint="name the import with --name"
        )
    declared = {**said.files, **{key: {} for key in _unnamed(folder, said)}}
    lines = dict.fromkeys(before)
    for name in sorted(declared):
        lines[_line(folder / name, name, declared[name])] = None
    if not lines:
        raise SettingsError(
            "at least one picture to import",
            got=f"none in {said.path.name} or below {folder}",
            hint="name the pictures in its column file_name",
        )
    newest = {_uri(line): line for line in lines}
    atomic.write_text(listing, "\n".join(newest[uri] for uri in sorted(newest)) + "\n")


def record(
    home: Home, folder: Path, said: Metadata, *, batch: str, now: datetime | None = None
) -> tuple[pl.DataFrame, int]:
    """Bring the import's rows of ``annotations`` up to its metadata.

    Returns:
        The events written, and how many votes stand on a kept face.
    """
    from annotation.label_studio.event_log import standing_annotations

    project = _project(batch)
    wanted = {row["annotation_id"]: row for row in _annotations(home, folder, said, batch=batch)}
    known = tables.read(home, "annotations").filter(pl.col("project_id") == project)
    here = {
        row["annotation_id"]: row
        for row in standing_annotations(known, project).iter_rows(named=True)
    }
    stamp = {"pulled_at": _after(known, now or datetime.now(UTC))}
    events = [
        {**row, **stamp, "event": "updated" if number in here else "created"}
        for number, row in sorted(wanted.items())
        if number not in here or here[number]["face_id"] != row["face_id"]
    ]
    gone = sorted(here.keys() - wanted.keys())
    events += [{**here[number], **stamp, "event": "deleted"} for number in gone]
    frame = pl.DataFrame(events, schema=TABLES["annotations"].schema, orient="row")
    if frame.height:
        part = f"import-{batch}-{sha256_of([str(known.height).encode()])[:8]}"
        tables.write(home, "annotations", frame, part=part)
    return frame, sum(row["face_id"] is not None for row in wanted.values())


def _annotations(
    home: Home, folder: Path, said: Metadata, *, batch: str
) -> Iterator[dict[str, Any]]:
    faces, salt, project = _faces(home, batch), home.salt(), _project(batch)
    for one in said.said:
        key = [batch, one.file_name, one.rater, *one.answers]
        yield {
            "annotation_id": int(sha256_of(["|".join(key).encode()])[:15], 16),
            "project_id": project,
            "face_id": faces.get(str(folder / one.file_name)),
            "rater_id": _rater(one, salt=salt, batch=batch),
            "rater_kind": "person",
            "answer": {
                "validity": _validity(one),
                "expressions": list(one.answers),
            },
            "label_set": "expressions",
            "was_cancelled": False,
            "saw_prediction": False,
            "created_at": one.at,
            "updated_at": one.at,
        }


def _validity(one: Said) -> str:
    return "not_a_face" if one.answers == ("not_a_face",) else "face"


def _rater(one: Said, *, salt: str, batch: str) -> str:
    """A pseudonym; names of seats stay readable, because nobody is behind them."""
    hidden = pseudonym("person", salt, f"{batch}|{one.rater}")
    return hidden.replace("person-", f"person-{one.rater}-") if one.rater[:5] == "seat-" else hidden


def _faces(home: Home, batch: str) -> dict[str, str]:
    """Address of a picture to its best kept face; a copy of another picture has that one's."""
    videos = tables.read(home, "videos", batch=batch).select("uri", "video_id")
    found = tables.scan(home, "faces").filter(pl.col("verdict") == "kept")
    best = (
        found.select("video_id", "face_id", "detector_score", "size_px")
        .collect()
        .join(videos.select("video_id").unique(), on="video_id", how="semi")
        .sort("detector_score", "size_px", "face_id", descending=[True, True, False])
        .unique("video_id", keep="first", maintain_order=True)
    )
    joined = videos.join(best, on="video_id")
    return dict(zip(joined["uri"], joined["face_id"], strict=True))


def _project(batch: str) -> int:
    # Below zero, where no server numbers its projects.
    return -1 - int(sha256_of([f"import|{batch}".encode()])[:12], 16)


def _after(known: pl.DataFrame, now: datetime) -> datetime:
    last: Any = known["pulled_at"].max()
    return max(now, last) if last else now


def _unnamed(folder: Path, said: Metadata) -> list[str]:
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(
        str(path)
        for path in found
        if path.suffix.lower() in _PICTURES
        and str(path) not in said.files
        and not any(part.startswith(".") for part in path.parts)
    )


def _line(path: Path, name: str, declared: dict[str, str | None]) -> str:
    facts = {key: declared.get(key) for key in metadata.DECLARED}
    line = {"uri": str(path), "file_name": name, **facts, "source": SOURCE}
    return json.dumps(line, sort_keys=True)


def _uri(line: str) -> str:
    return str(json.loads(line)["uri"])
