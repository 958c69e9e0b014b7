"""Import a labelled image dataset as faces and annotations."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from pipeline import progress, runs
from pipeline.ingest import batches, metadata, names
from pipeline.ingest.manifest import LISTING
from pipeline.ingest.metadata import Metadata, SourceVote
from pipeline.settings import Settings
from warehouse.errors import SettingsError
from warehouse.ids import batch_from, check_batch, pseudonym, sha256_of
from warehouse.storage import atomic, locks, tables
from warehouse.storage.home import Home
from warehouse.storage.schema import TABLES

if TYPE_CHECKING:
    from rich.console import Console

SOURCE = "imported"
_IMAGES = (
    ".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".heic", ".heif",
    ".avif",
)  # fmt: skip


@dataclass(frozen=True)
class ImportReport:
    """Outcome of an import.

    Attributes:
        counts: numbers of votes and images by description. ``new``, ``moved to another face``
            and ``taken back`` count the events written by this run.
        notes: remarks about how the metadata was read.
    """

    summary: batches.Summary
    counts: dict[str, int]
    notes: list[str] = field(default_factory=list)

    @property
    def facts(self) -> dict[str, Any]:
        """The report as a JSON document."""
        notes = [*self.summary.notes, *self.notes]
        return {**self.summary.facts, **self.counts, "notes": notes}

    def show(self, console: Console) -> None:
        """Print the report for people."""
        self.summary.show(console)
        for name, value in self.counts.items():
            console.print(f"{name:<40} {value}")
        for note in self.notes:
            console.print(note)


def run(settings: Settings, folder: str, *, name: str | None = None) -> ImportReport:
    """Ingest the images of a folder and record their votes.

    Images go through the standard pipeline: detection, alignment, quality gate. The votes of an
    image belong to its best kept face. A second run repeats nothing; if the metadata changed, the
    differences become new events.

    Args:
        name: of the batch; default: the name of the folder.

    Raises:
        SettingsError: the folder, its metadata or the name is invalid.
    """
    place = Path(folder).expanduser()
    if not place.is_dir():
        raise SettingsError("The dataset is not a folder", got=folder, hint="check the path")
    home, place = settings.place, place.resolve()
    batch = check_batch(name) if name else batch_from(place.name)
    found = metadata.read(place)
    with locks.writing(home.root, waiting=progress.waiting):
        write_listing(home, place, found, batch=batch)
        runs.add_batch(home, batch)
        runs.materialize(home, "ingest", batch=batch)
        events, on_faces = record(home, place, found, batch=batch)
        runs.materialize(home, "import_labels")
    kinds = events["event"].value_counts()
    count = dict(zip(kinds["event"], kinds["count"], strict=True))
    labelled = {vote.file_name for vote in found.votes}
    return ImportReport(
        summary=batches.summary(home, batch),
        counts={
            "votes": len(found.votes),
            "votes on kept faces": on_faces,
            "votes on pictures without a kept face": len(found.votes) - on_faces,
            "new": count.get("created", 0),
            "moved to another face": count.get("updated", 0),
            "taken back": count.get("deleted", 0),
            "pictures without a vote": len(found.files.keys() - labelled)
            + len(_unlisted(place, found)),
        },
        notes=[*found.notes, *_linked_folders(place)],
    )


def write_listing(home: Home, folder: Path, found: Metadata, *, batch: str) -> None:
    """Write ``inbox/<batch>/sources.jsonl`` with every image of the folder.

    Raises:
        SettingsError: a batch of that name exists and is not an import, or there is no image.
    """
    listing = home.inbox / batch / LISTING
    before = names.json_lines(listing.read_text()) if listing.exists() else []
    if any(f'"source": "{SOURCE}"' not in line for line in before):
        raise SettingsError(
            "Another batch has this name", got=repr(batch), hint="name the import with --name"
        )
    _check_same_folder(before, folder, batch=batch)
    declared = {**found.files, **{key: {} for key in _unlisted(folder, found)}}
    lines = dict.fromkeys(before)
    for name in sorted(declared):
        facts = {key: declared[name].get(key) for key in metadata.DECLARED}
        line = {"uri": str(folder / name), "file_name": name, **facts, "source": SOURCE}
        lines[json.dumps(line, sort_keys=True)] = None
    if not lines:
        raise SettingsError(
            "There is no image to import",
            got=f"none in {found.path.name} or below {folder}",
            hint="name the images in its column file_name",
        )
    newest = {str(json.loads(line)["uri"]): line for line in lines}
    atomic.write_text(listing, "\n".join(newest[uri] for uri in sorted(newest)) + "\n")


def _check_same_folder(before: list[str], folder: Path, *, batch: str) -> None:
    """Raise if a batch was imported from another folder that is still there.

    Two datasets often have a folder of one name, ``train`` or ``images``. A folder that moved
    continues its batch.
    """
    for line in before:
        found = json.loads(line)
        name = str(found.get("file_name") or "")
        if not str(found["uri"]).endswith(f"/{name}"):
            continue
        earlier = Path(str(found["uri"]).removesuffix(f"/{name}"))
        if earlier != folder and earlier.is_dir():
            raise SettingsError(
                "Another dataset was imported under this name",
                got=f"{batch!r}, from {earlier}",
                hint="give this one a name that no other batch has with --name",
            )


def record(
    home: Home, folder: Path, found: Metadata, *, batch: str, now: datetime | None = None
) -> tuple[pl.DataFrame, int]:
    """Append the events that make ``annotations`` agree with the metadata.

    Returns:
        The events written, and the number of votes on a kept face.
    """
    from annotation.label_studio.event_log import standing_annotations

    project = _project(batch)
    wanted = {row["annotation_id"]: row for row in _annotations(home, folder, found, batch=batch)}
    known = tables.read(home, "annotations").filter(pl.col("project_id") == project)
    current = {
        row["annotation_id"]: row
        for row in standing_annotations(known, project).iter_rows(named=True)
    }
    last: Any = known["pulled_at"].max()
    now = now or datetime.now(UTC)
    stamp = {"pulled_at": max(now, last) if last else now}
    events = [
        {**row, **stamp, "event": "updated" if number in current else "created"}
        for number, row in sorted(wanted.items())
        if number not in current or current[number]["face_id"] != row["face_id"]
    ]
    deleted = sorted(current.keys() - wanted.keys())
    events += [{**current[number], **stamp, "event": "deleted"} for number in deleted]
    frame = pl.DataFrame(events, schema=TABLES["annotations"].schema, orient="row")
    if frame.height:
        part = f"import-{batch}-{sha256_of([str(known.height).encode()])[:8]}"
        tables.write(home, "annotations", frame, part=part)
    return frame, sum(row["face_id"] is not None for row in wanted.values())


def _annotations(
    home: Home, folder: Path, found: Metadata, *, batch: str
) -> Iterator[dict[str, Any]]:
    faces, salt, project = _best_faces(home, batch), home.salt(), _project(batch)
    asked: set[tuple[str, str]] = set()
    for vote in found.votes:
        key = [batch, vote.file_name, vote.rater, *vote.answers]
        if (vote.file_name, vote.rater) in asked:
            key.append(str(vote.at))  # a retest: another answer, even if the same
        asked.add((vote.file_name, vote.rater))
        yield {
            "annotation_id": int(
                sha256_of(["|".join(key).encode("utf-8", "surrogatepass")])[:15], 16
            ),
            "project_id": project,
            "face_id": faces.get(str(folder / vote.file_name)),
            "item_kind": "face",
            "item_id": faces.get(str(folder / vote.file_name)),
            "rater_id": _rater_id(vote, salt=salt, batch=batch),
            "rater_kind": "person",
            "answer": {
                "validity": "not_a_face" if vote.answers == ("not_a_face",) else "face",
                "expressions": list(vote.answers),
            },
            "label_set": "expressions",
            "was_cancelled": False,
            "saw_prediction": False,
            "created_at": vote.at,
            "updated_at": vote.at,
        }


def _rater_id(vote: SourceVote, *, salt: str, batch: str) -> str:
    """Return a pseudonym; names of seats identify no person and stay."""
    hidden = pseudonym("person", salt, f"{batch}|{vote.rater}")
    if vote.rater.startswith("seat-"):
        return hidden.replace("person-", f"person-{vote.rater}-")
    return hidden


def _best_faces(home: Home, batch: str) -> dict[str, str]:
    """Return the best kept face by image address; duplicates share one."""
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
    # Negative, because Label Studio numbers its projects from 1.
    return -1 - int(sha256_of([f"import|{batch}".encode()])[:12], 16)


def _unlisted(folder: Path, found: Metadata) -> list[str]:
    """Return the images of the folder that the metadata does not name."""
    files = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(
        str(path)
        for path in files
        if path.suffix.lower() in _IMAGES
        and str(path) not in found.files
        and not any(part.startswith(".") for part in path.parts)
    )


def _linked_folders(folder: Path) -> list[str]:
    """Return a note about the links to folders, which are not followed."""
    links = sorted(
        names.escaped(str(path.relative_to(folder)))
        for path in folder.rglob("*")
        if path.is_symlink() and path.is_dir() and not path.name.startswith(".")
    )
    if not links:
        return []
    return [f"{len(links)} linked folders were not followed ({', '.join(links)}); copy them here"]
