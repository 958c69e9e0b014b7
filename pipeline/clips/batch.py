"""A batch's tracks into clips; run again, a video whose faces and ratings are the same is left.

The table's file of a video is written last, so whatever a killed process left is done again.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from pipeline.clips import asr as speech
from pipeline.clips import audio, export, transcripts
from pipeline.clips.segmentation import METHOD, Episode, EpisodeOptions, episodes, movement
from warehouse.errors import MediaError, ModelError
from warehouse.ids import file_sha256, sha256_of
from warehouse.privacy import tombstones
from warehouse.storage import atomic, mirror, tables
from warehouse.storage.home import Home
from warehouse.storage.schema import TABLES
from warehouse.vocabulary import ACTION_UNITS, EXPRESSIONS

Say = Callable[[str, int, int], None]

SOUNDS, MOVIES = "sound", "clips"
"""Folders of the media: ``sound/<clip_id>.flac`` and ``clips/<track_id>.webm``."""

_UNITS = tuple(unit.number for unit in ACTION_UNITS)
_FEWEST = 5
"""Fewer rated faces of a track make no curve."""

_MARGIN_S = 0.4
"""A clip begins this long before its onset and ends this long after its offset."""


@dataclass(frozen=True)
class ClipOptions:
    """What decides which clips come out of a video; part of each file's fingerprint."""

    keep_audio: bool = False
    speech: str | None = None
    movies: bool = False
    blur_bystanders: bool = True
    episodes: EpisodeOptions = field(default_factory=EpisodeOptions)


def find_clips(home: Home, batch: str, options: ClipOptions, *, say: Say | None = None) -> int:
    """Fill ``clips`` for every rated video of a batch that moves; return how many were worked on.

    A track gives a row per movement, or one that says why it gives none. What is heard and said
    goes with them; a transcript nobody can read, or a recogniser that fails, costs the words
    alone, and the reason of a kept clip says so.

    Raises:
        SettingsError, ModelError: the named recogniser is not there.
    """
    recogniser = speech.load(options.speech) if options.speech else None
    videos = tables.read(home, "videos", batch=batch).filter(
        (pl.col("verdict") == "kept") & (pl.col("duration_s") > 0)
    )
    faces = tables.read(home, "faces", batch=batch)
    rated = tables.read(home, "ratings", batch=batch).sort("face_id", "rater_id")
    # Of two raters the last named one, as everywhere a single reading is wanted.
    rated = rated.unique("face_id", keep="last", maintain_order=True)
    for orphan in tables.parts(home, "clips", batch=batch) - set(videos["video_id"]):
        tables.remove(home, "clips", part=orphan, batch=batch)
        for folder in (SOUNDS, MOVIES):
            mirror.sync(home.media / folder)
            for path in sorted((home.media / folder).glob(f"{orphan}-*")):
                atomic.remove(path)
    worked, standing = 0, tombstones.blocklist(home)
    for number, video in enumerate(videos.sort("video_id").iter_rows(named=True), start=1):
        mine = faces.filter(pl.col("video_id") == video["video_id"]).sort("track_id", "time_s")
        seen = mine.filter(pl.col("verdict") == "kept").join(
            rated.drop("batch"), on="face_id", how="inner", maintain_order="left"
        )
        mute = standing.find_shared(video=video["video_id"]) is not None
        own = replace(options, keep_audio=False, speech=None, movies=False) if mute else options
        # Somebody who left is seen and heard in it: nothing but the curves of the others is used.
        transcript = None if mute else transcripts.transcript_of(Path(video["uri"]))
        video = video | {"transcript": transcript}
        stamp = _stamp(video, mine, seen, own)
        place = {"part": video["video_id"], "batch": batch}
        if tables.metadata(home, "clips", **place).get("fingerprint") != stamp:
            rows = _of_video(home, video, mine, seen, own, recogniser)
            frame = pl.DataFrame(rows, schema=TABLES["clips"].schema)
            tables.write(home, "clips", frame, **place, metadata={"fingerprint": stamp})
            worked += 1
        if say:
            say(Path(video["uri"]).name, number, videos.height)
    return worked


def _of_video(
    home: Home,
    video: dict[str, Any],
    faces: pl.DataFrame,
    seen: pl.DataFrame,
    options: ClipOptions,
    recogniser: speech.Recogniser | None,
) -> list[dict[str, Any]]:
    rows, windows = [], []
    for (track,), whole in faces.partition_by(
        "track_id", as_dict=True, maintain_order=True
    ).items():
        rated = seen.filter(pl.col("track_id") == track)
        found = _of_track(str(track), whole, rated, video, options.episodes)
        rows += found
        if rated.height > 1:
            best = max(found, key=lambda row: row["apex_intensity"] or 0.0)
            times = rated["time_s"].to_numpy()
            windows.append(export.window(str(track), times, apex_s=best["apex_s"]))
    kept = [row for row in rows if row["verdict"] == "kept"]
    heard = _heard(video, options) if kept else None
    said, wrong = _said(video, heard, options, recogniser) if kept else (None, None)
    for row in kept:
        span = {"start_s": row["start_s"], "end_s": row["end_s"]}
        row["words"] = (
            None if said is None else [asdict(one) for one in transcripts.cut(said, **span)]
        )
        row["reason"] = wrong
    _keep_sounds(home, video["video_id"], kept, heard if options.keep_audio else None)
    _keep_movies(home, video, faces, windows, options)
    return rows


def _of_track(
    track: str,
    whole: pl.DataFrame,
    rated: pl.DataFrame,
    video: dict[str, Any],
    options: EpisodeOptions,
) -> list[dict[str, Any]]:
    """One row per movement, or one that says why there is none."""
    times = rated["time_s"].to_numpy()
    known: dict[str, Any] = dict.fromkeys(TABLES["clips"].columns) | {
        "track_id": track, "video_id": video["video_id"], "batch": video["batch"],
        "method": METHOD, "rater_id": rated["rater_id"][-1] if rated.height else None,
    }  # fmt: skip
    reason = None
    found: list[Episode] = []
    if rated.height < _FEWEST:
        reason = "too_short"
    else:
        curves = rated["au"].to_numpy().astype(float).reshape(-1, len(_UNITS))
        moved = movement(times, curves, units=_UNITS, options=options)
        found = episodes(times, moved, options=options)
        reason = None if found else "no_movement"
    if not found:
        span = whole["time_s"]
        return [
            known | {
                "clip_id": f"{track}-c0", "start_s": span.min(), "end_s": span.max(),
                "n_faces": rated.height, "verdict": "dropped", "reason": reason,
            }
        ]  # fmt: skip
    return [
        known | _row(f"{track}-c{number}", rated, times, one) for number, one in enumerate(found)
    ]


def _row(clip: str, rated: pl.DataFrame, times: np.ndarray, found: Episode) -> dict[str, Any]:
    def at(row: int | None) -> float | None:
        return None if row is None else float(times[row])

    start = times[found.first if found.onset is None else found.onset] - _MARGIN_S
    end = times[found.last if found.offset is None else found.offset] + _MARGIN_S
    inside = times[(times >= start) & (times <= end)]
    apex = rated.row(found.apex, named=True)
    shares = np.asarray(apex["expression"], dtype=float)
    top = np.flatnonzero(shares >= shares.max() - 1e-6)
    return {
        "clip_id": clip, "start_s": float(inside[0]), "end_s": float(inside[-1]),
        "onset_s": at(found.onset), "apex_s": at(found.apex), "offset_s": at(found.offset),
        "n_faces": len(inside), "apex_face_id": apex["face_id"], "apex_au": _UNITS[found.unit],
        "apex_intensity": found.intensity,
        "apex_expression": EXPRESSIONS[int(top[0])] if len(top) == 1 else None,
        "verdict": "kept",
    }  # fmt: skip


def _heard(video: dict[str, Any], options: ClipOptions) -> np.ndarray | None:
    """The video's sound, if anybody wants it and it has one that can be decoded."""
    wanted = options.keep_audio or (options.speech and not video["transcript"])
    if not (wanted and video["has_audio"]):
        return None
    try:
        return audio.load(video["uri"])
    except MediaError:
        return None


def _said(
    video: dict[str, Any],
    heard: np.ndarray | None,
    options: ClipOptions,
    recogniser: speech.Recogniser | None,
) -> tuple[list[transcripts.Said] | None, str | None]:
    """What is said, None where nobody knows; and what went wrong."""
    try:
        if video["transcript"]:
            return transcripts.read(video["transcript"]), None
        if recogniser is None or heard is None:
            return None, None
        samples = heard.astype(np.float32) / 32768
        return speech.recognise(recogniser, samples, audio.RATE, name=str(options.speech)), None
    except MediaError as error:
        return None, f"{error.got}; {error.hint}"
    except ModelError as error:
        return None, f"no_words: {error.got}; {error.hint}"


def _keep_sounds(
    home: Home, video_id: str, rows: list[dict[str, Any]], heard: np.ndarray | None
) -> None:
    folder = home.media / SOUNDS
    mirror.sync(folder)
    stale = set(folder.glob(f"{video_id}-*.flac"))
    for row in rows if heard is not None else []:
        samples = audio.cut(heard, start_s=row["start_s"], end_s=row["end_s"])  # type: ignore[arg-type]
        if len(samples):
            path = folder / f"{row['clip_id']}.flac"
            audio.write(path, samples)
            row["sound"] = f"{SOUNDS}/{path.name}"
            stale.discard(path)
    for path in stale:
        atomic.remove(path)


def _keep_movies(
    home: Home,
    video: dict[str, Any],
    faces: pl.DataFrame,
    windows: list[export.Window],
    options: ClipOptions,
) -> None:
    folder = home.media / MOVIES
    wanted = {f"{one.track_id}.webm" for one in windows} if options.movies else set()
    for path in folder.glob(f"{video['video_id']}-*.webm"):
        # Without the setting, clips that somebody put there by hand are left alone.
        if options.movies and path.name not in wanted:
            atomic.remove(path)
    if wanted:
        export.cut(video["uri"], windows, faces, folder, blur=options.blur_bystanders)


def _stamp(
    video: dict[str, Any], faces: pl.DataFrame, seen: pl.DataFrame, options: ClipOptions
) -> str:
    """Changes when a face, a reading, the transcript or an option does."""
    transcript = video["transcript"]
    told = [METHOD, json.dumps(asdict(options), sort_keys=True)]
    told += [file_sha256(str(transcript))] if transcript else []
    boxes = faces.select("face_id", "bbox", "verdict").write_ndjson() if options.movies else ""
    readings = seen.select("face_id", "rater_id", "au", "expression").write_ndjson()
    return sha256_of([text.encode() for text in (*told, boxes, readings)])[:16]
