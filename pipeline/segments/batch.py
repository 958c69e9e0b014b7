"""Write the segments of a batch.

Skips videos whose rows, sidecars and options are unchanged. The table file of a video is written
last, so a killed run repeats an unfinished video.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from pipeline.clips import audio, transcripts
from pipeline.faces.box_track import box_tracks
from pipeline.segments import media, sources
from pipeline.segments.sources import Segment
from warehouse.errors import MediaError
from warehouse.ids import file_sha256, sha256_of
from warehouse.privacy import tombstones
from warehouse.storage import atomic, mirror, tables
from warehouse.storage.home import Home
from warehouse.storage.schema import TABLES

Progress = Callable[[str, int, int], None]
"""Called as ``progress(file_name, done, total)`` after each video."""

MEDIA = "segments"
"""Media folder: ``segments/<segment_id>.mp4`` and ``.flac``."""

NO_FACE = ("no_face", "no_usable_face")
"""Reasons of videos that have no face and can be watched (46_watchable_videos.sql)."""

_METHOD = "segments 1"


@dataclass(frozen=True)
class SegmentOptions:
    """Options of ``find_segments``; part of the fingerprint of each file.

    Attributes:
        sources: names in ``settings.SEGMENT_SOURCES``; each adds its segments.
        window_s: length of a window.
        videos: write an mp4 per segment.
        sound: write its sound, also into the mp4.
        blur_bystanders: hide faces of others in the mp4.
    """

    sources: tuple[str, ...] = ("sidecar",)
    window_s: float = 5.0
    videos: bool = True
    sound: bool = False
    blur_bystanders: bool = True


def find_segments(
    home: Home, batch: str, options: SegmentOptions, *, progress: Progress | None = None
) -> int:
    """Write ``segments`` for every video of a batch that people can watch.

    A video without a usable face has segments too.

    A segment whose times cannot be is a failed row with the reason; so is a sidecar that cannot
    be read. Others are kept.

    Returns:
        number of videos processed; unchanged ones are not counted.
    """
    reason = pl.col("reason").str.split(":").list.first()
    watchable = (pl.col("verdict") == "kept") | reason.is_in(NO_FACE).fill_null(False)
    videos = tables.read(home, "videos", batch=batch).filter(watchable & (pl.col("duration_s") > 0))
    written = tables.parts(home, "segments", batch=batch)
    for orphan in written - set(videos["video_id"]):
        tables.remove(home, "segments", part=orphan, batch=batch)
        _remove_media(home, orphan, keep=())
    faces = tables.read(home, "faces", batch=batch)
    tracks = tables.read(home, "tracks", batch=batch)
    processed, blocklist = 0, tombstones.blocklist(home)
    for number, video in enumerate(videos.sort("video_id").iter_rows(named=True), start=1):
        own = _Video(
            home, video,
            faces.filter(pl.col("video_id") == video["video_id"]),
            tracks.filter(pl.col("video_id") == video["video_id"]),
            options,
            shared=blocklist.find_shared(video=video["video_id"]) is not None,
        )  # fmt: skip
        place = {"part": video["video_id"], "batch": batch}
        if not own.has_sources():
            if video["video_id"] in written:
                tables.remove(home, "segments", **place)
                _remove_media(home, video["video_id"], keep=())
            continue
        fingerprint = own.fingerprint()
        if tables.metadata(home, "segments", **place).get("fingerprint") != fingerprint:
            frame = pl.DataFrame(own.rows(), schema=TABLES["segments"].schema)
            tables.write(home, "segments", frame, **place, metadata={"fingerprint": fingerprint})
            processed += 1
        if progress:
            progress(Path(video["uri"]).name, number, videos.height)
    return processed


def unmatched_names(home: Home, batch: str) -> list[str]:
    """Return the videos that sidecars of a batch name and that it lacks."""
    videos = [Path(uri) for uri in tables.read(home, "videos", batch=batch)["uri"]]
    missing = []
    for folder in sorted({video.parent for video in videos}):
        path = folder / sources.SIDECAR
        if path.is_file():
            try:
                missing += sources.unmatched(path, videos)
            except MediaError:
                continue  # every video of the folder has a failed row that says so
    return missing


@dataclass
class _Video:
    """One video, and what its segments are made from."""

    home: Home
    row: dict[str, Any]
    faces: pl.DataFrame
    tracks: pl.DataFrame
    options: SegmentOptions
    shared: bool
    """An erased person is seen or heard in it: no picture, sound or words are taken."""

    def has_sources(self) -> bool:
        """Whether anything may give a segment."""
        made = {"windows", "shots"} & set(self.options.sources)
        return bool(made or self._inputs())

    def fingerprint(self) -> str:
        """Hash everything that the rows and files follow from."""
        parts = [_METHOD, json.dumps(asdict(self.options), sort_keys=True), str(self.shared)]
        parts += [str(self.row[name]) for name in ("sha256", "duration_s", "subject_id", "consent")]
        parts += [file_sha256(str(path)) for path in self._inputs()]
        if self.options.videos and self.options.blur_bystanders:
            parts.append(self.faces.select("face_id", "bbox", "time_s").write_ndjson())
        return sha256_of([part.encode() for part in parts])[:16]

    def rows(self) -> list[dict[str, Any]]:
        """Write the media of the segments; return their rows."""
        duration = self.row["duration_s"]
        found = sources.checked(self._found(), duration_s=duration)
        rows: list[dict[str, Any]] = []
        for one in found:
            rows.append(self._row(one, taken={row["segment_id"] for row in rows}))
        kept = [row for row in rows if row["verdict"] == "kept"] if not self.shared else []
        samples = sound_of(self.row) if kept and self.options.sound else None
        folder = self.home.media / MEDIA
        for row in kept if samples is not None else []:
            path = folder / f"{row['segment_id']}.flac"
            times = {"start_s": row["start_s"], "end_s": row["end_s"]}
            if media.cut_sound(path, samples, **times):  # type: ignore[arg-type]
                row["sound"] = f"{MEDIA}/{path.name}"
        if kept and self.options.videos:
            self._cut_videos(kept, samples)
        _remove_media(
            self.home,
            self.row["video_id"],
            keep={row[name] for row in rows for name in ("video", "sound") if row[name]},
        )
        return rows

    def _inputs(self) -> list[Path]:
        video = Path(self.row["uri"])
        wanted = "transcript" in self.options.sources
        transcript = transcripts.transcript_of(video) if wanted else None
        found = self._sidecars()
        return [*found, *([transcript] if transcript else [])]

    def _sidecars(self) -> list[Path]:
        if "sidecar" not in self.options.sources:
            return []
        return list(sources.sidecar_of(Path(self.row["uri"])))

    def _found(self) -> list[Segment]:
        video, duration = Path(self.row["uri"]), self.row["duration_s"]
        found: list[Segment] = []

        def fail(error: MediaError, source: str) -> None:
            found.append(Segment(None, None, "span", source, fault=error.got))

        for path in self._sidecars():
            try:
                found += sources.from_sidecar(path, video)
            except MediaError as error:
                fail(error, "sidecar")
        transcript = transcripts.transcript_of(video)
        if "transcript" in self.options.sources and transcript is not None:
            try:
                found += sources.from_transcript(transcript)
            except MediaError as error:
                fail(error, "transcript")
        if "windows" in self.options.sources:
            found += sources.windows(duration, self.options.window_s)
        if "shots" in self.options.sources:
            try:
                found += sources.shots(self.row["uri"], duration)
            except MediaError as error:
                fail(error, "shots")
        return found

    def _row(self, one: Segment, *, taken: set[str]) -> dict[str, Any]:
        # From what it is, not from its place: votes keep their segment when a row is added.
        facts = (one.kind, one.start_s, one.end_s, one.dialogue_id, one.turn, one.speaker)
        digest = sha256_of([repr(facts).encode()])[:8]
        segment_id = own = f"{self.row['video_id']}-s{digest}"
        fault, verdict = one.fault, "failed" if one.fault else "kept"
        if own in taken:
            verdict = "failed" if fault else "dropped"
            fault = fault or "repeated: an equal row stands before"
            segment_id = next(f"{own}-{n}" for n in range(2, 10**6) if f"{own}-{n}" not in taken)
        subjects = list(one.subject_ids) or [s for s in [self.row["subject_id"]] if s]
        text = None if self.shared else one.transcript
        return dict.fromkeys(TABLES["segments"].columns) | {
            "segment_id": segment_id, "video_id": self.row["video_id"],
            "batch": self.row["batch"], "kind": one.kind, "start_s": one.start_s,
            "end_s": one.end_s, "dialogue_id": one.dialogue_id, "turn": one.turn,
            "speaker": one.speaker, "role": one.role, "transcript": text,
            "language": one.language, "subject_ids": subjects, "source": one.source,
            "verdict": verdict, "reason": fault or one.note,
        }  # fmt: skip

    def _cut_videos(self, kept: list[dict[str, Any]], samples: Any) -> None:
        folder = self.home.media / MEDIA
        cuts = {folder / f"{row['segment_id']}.mp4": row for row in kept}
        failed = media.cut_videos(
            self.row["uri"],
            [
                media.Cut(
                    path,
                    row["start_s"],
                    row["end_s"],
                    visible_tracks(self.tracks, row["subject_ids"]),
                )
                for path, row in cuts.items()
            ],
            tracks=box_tracks(self.faces),
            blur=self.options.blur_bystanders,
            samples=samples,
        )
        for path, row in cuts.items():
            if path in failed:
                row["reason"] = "; ".join(filter(None, [row["reason"], failed[path]]))
            if path.is_file() and path not in failed:
                row["video"] = f"{MEDIA}/{path.name}"


def visible_tracks(tracks: pl.DataFrame, subject_ids: list[str]) -> frozenset[str]:
    """Return the tracks of a video that stay visible: named or main ones."""
    named = tracks.filter(pl.col("subject_id").is_in(subject_ids))
    main = tracks.filter(pl.col("is_main"))
    return frozenset((named if named.height else main)["track_id"])


def sound_of(video: Mapping[str, Any]) -> np.ndarray | None:
    """Return the sound of a row of ``videos``; None if it has none."""
    if not video["has_audio"]:
        return None
    try:
        return audio.load(video["uri"])
    except MediaError:
        return None


def _remove_media(home: Home, video_id: str, *, keep: Any) -> None:
    folder = home.media / MEDIA
    mirror.sync(folder)
    for path in sorted(folder.glob(f"{video_id}-s*")):
        if f"{MEDIA}/{path.name}" not in keep:
            atomic.remove(path)
