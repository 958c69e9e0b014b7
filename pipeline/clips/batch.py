"""Find the clips of a batch.

Skips videos whose faces, ratings, transcript and options are unchanged. The table file of a video
is written last, so a killed run repeats an unfinished video.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from pipeline.clips import audio, export, transcripts
from pipeline.clips.segmentation import METHOD, Episode, EpisodeOptions, episodes, movement
from warehouse.errors import MediaError, ModelError
from warehouse.ids import file_sha256, sha256_of
from warehouse.privacy import tombstones
from warehouse.storage import atomic, mirror, tables
from warehouse.storage.home import Home
from warehouse.storage.schema import TABLES
from warehouse.vocabulary import ACTION_UNITS, EXPRESSIONS

Progress = Callable[[str, int, int], None]
"""Called as ``progress(file_name, done, total)`` after each video."""

SOUNDS, VIDEOS = "sound", "clips"
"""Media folders: ``sound/<clip_id>.flac`` and ``clips/<track_id>.webm``."""

_UNITS = tuple(unit.number for unit in ACTION_UNITS)

_MIN_FACES = 5
"""A track with fewer rated faces has no curve."""

_MARGIN_S = 0.4
"""A clip begins this long before its onset and ends this long after its offset."""


@dataclass(frozen=True)
class ClipOptions:
    """Options of ``find_clips``; part of the fingerprint of each file."""

    keep_audio: bool = False
    speech: str | None = None
    movies: bool = False
    blur_bystanders: bool = True
    episodes: EpisodeOptions = field(default_factory=EpisodeOptions)


def find_clips(
    home: Home, batch: str, options: ClipOptions, *, progress: Progress | None = None
) -> int:
    """Write ``clips`` for every rated video of a batch.

    A track gives one row per movement, or one row with the reason if there is none. Sound and
    words of a clip are stored with it. If a transcript is damaged or the recogniser fails, the
    clip is kept without words, and its reason names the error.

    Returns:
        number of videos processed; unchanged ones are not counted.

    Raises:
        SettingsError, ModelError: the recogniser cannot be loaded.
    """
    recogniser = transcripts.load_recogniser(options.speech) if options.speech else None
    videos = tables.read(home, "videos", batch=batch).filter(
        (pl.col("verdict") == "kept") & (pl.col("duration_s") > 0)
    )
    faces = tables.read(home, "faces", batch=batch)
    ratings = tables.read(home, "ratings", batch=batch).sort("face_id", "rater_id")
    # With several raters the last by name is used, as everywhere that needs one rating.
    ratings = ratings.unique("face_id", keep="last", maintain_order=True)
    for orphan in tables.parts(home, "clips", batch=batch) - set(videos["video_id"]):
        tables.remove(home, "clips", part=orphan, batch=batch)
        for folder in (SOUNDS, VIDEOS):
            mirror.sync(home.media / folder)
            for path in sorted((home.media / folder).glob(f"{orphan}-*")):
                atomic.remove(path)
    processed, blocklist = 0, tombstones.blocklist(home)
    for number, video in enumerate(videos.sort("video_id").iter_rows(named=True), start=1):
        own_faces = faces.filter(pl.col("video_id") == video["video_id"]).sort("track_id", "time_s")
        rated = own_faces.filter(pl.col("verdict") == "kept").join(
            ratings.drop("batch"), on="face_id", how="inner", maintain_order="left"
        )
        own_options, transcript = options, transcripts.transcript_of(Path(video["uri"]))
        if blocklist.find_shared(video=video["video_id"]) is not None:
            # An erased data subject is seen and heard in it: use only the curves of the others.
            own_options = replace(options, keep_audio=False, speech=None, movies=False)
            transcript = None
        video = video | {"transcript": transcript}
        fingerprint = _fingerprint(video, own_faces, rated, own_options)
        place = {"part": video["video_id"], "batch": batch}
        if tables.metadata(home, "clips", **place).get("fingerprint") != fingerprint:
            rows = _clips(home, video, own_faces, rated, own_options, recogniser)
            frame = pl.DataFrame(rows, schema=TABLES["clips"].schema)
            tables.write(home, "clips", frame, **place, metadata={"fingerprint": fingerprint})
            processed += 1
        if progress:
            progress(Path(video["uri"]).name, number, videos.height)
    return processed


def _clips(
    home: Home,
    video: dict[str, Any],
    faces: pl.DataFrame,
    rated: pl.DataFrame,
    options: ClipOptions,
    recogniser: transcripts.Recogniser | None,
) -> list[dict[str, Any]]:
    """Return the rows of one video and write its sound and video files."""
    rows, windows = [], []
    by_track = faces.partition_by("track_id", as_dict=True, maintain_order=True)
    for (track,), of_track in by_track.items():
        curve = rated.filter(pl.col("track_id") == track)
        found = _track_clips(str(track), of_track, curve, video, options.episodes)
        rows += found
        if curve.height > 1:
            strongest = max(found, key=lambda row: row["apex_intensity"] or 0.0)
            times = curve["time_s"].to_numpy()
            windows.append(export.window(str(track), times, apex_s=strongest["apex_s"]))
    kept = [row for row in rows if row["verdict"] == "kept"]
    samples = _sound(video, options) if kept else None
    cues, error = _words(video, samples, options, recogniser) if kept else (None, None)
    for row in kept:
        span = {"start_s": row["start_s"], "end_s": row["end_s"]}
        row["words"] = cues and [asdict(cue) for cue in transcripts.cut(cues, **span)]
        row["reason"] = error
    _write_sounds(home, video["video_id"], kept, samples if options.keep_audio else None)
    _write_videos(home, video, faces, windows, options)
    return rows


def _track_clips(
    track: str,
    faces: pl.DataFrame,
    rated: pl.DataFrame,
    video: dict[str, Any],
    options: EpisodeOptions,
) -> list[dict[str, Any]]:
    """Return one row per movement, or one row with the reason for none."""
    times = rated["time_s"].to_numpy()
    common: dict[str, Any] = dict.fromkeys(TABLES["clips"].columns) | {
        "track_id": track, "video_id": video["video_id"], "batch": video["batch"],
        "method": METHOD, "rater_id": rated["rater_id"][-1] if rated.height else None,
    }  # fmt: skip
    found: list[Episode] = []
    if rated.height >= _MIN_FACES:
        curves = rated["au"].to_numpy().astype(float).reshape(-1, len(_UNITS))
        moved = movement(times, curves, units=_UNITS, options=options)
        found = episodes(times, moved, options=options)
    if not found:
        reason = "too_short" if rated.height < _MIN_FACES else "no_movement"
        return [
            common | {
                "clip_id": f"{track}-c0", "start_s": faces["time_s"].min(),
                "end_s": faces["time_s"].max(), "n_faces": rated.height, "verdict": "dropped",
                "reason": reason,
            }
        ]  # fmt: skip
    return [
        common | _row(f"{track}-c{number}", rated, times, one) for number, one in enumerate(found)
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


def _sound(video: dict[str, Any], options: ClipOptions) -> np.ndarray | None:
    """Decode the video's sound if an option needs it; None if it has none."""
    needed = options.keep_audio or (options.speech and not video["transcript"])
    if not (needed and video["has_audio"]):
        return None
    try:
        return audio.load(video["uri"])
    except MediaError:
        return None


def _words(
    video: dict[str, Any],
    samples: np.ndarray | None,
    options: ClipOptions,
    recogniser: transcripts.Recogniser | None,
) -> tuple[list[transcripts.Cue] | None, str | None]:
    """Return the cues of a video (None if unknown) and the error, if any."""
    try:
        if video["transcript"]:
            return transcripts.read(video["transcript"]), None
        if recogniser is None or samples is None:
            return None, None
        scaled = samples.astype(np.float32) / 32768
        name = str(options.speech)
        return transcripts.recognise(recogniser, scaled, audio.RATE, name=name), None
    except MediaError as error:
        return None, f"{error.got}; {error.hint}"
    except ModelError as error:
        return None, f"no_words: {error.got}; {error.hint}"


def _write_sounds(
    home: Home, video_id: str, rows: list[dict[str, Any]], samples: np.ndarray | None
) -> None:
    """Write the sound of each clip and remove the files of an earlier run."""
    folder = home.media / SOUNDS
    mirror.sync(folder)
    stale = set(folder.glob(f"{video_id}-*.flac"))
    for row in rows if samples is not None else []:
        part = audio.cut(samples, start_s=row["start_s"], end_s=row["end_s"])  # type: ignore[arg-type]
        if len(part):
            path = folder / f"{row['clip_id']}.flac"
            audio.write(path, part)
            row["sound"] = f"{SOUNDS}/{path.name}"
            stale.discard(path)
    for path in stale:
        atomic.remove(path)


def _write_videos(
    home: Home,
    video: dict[str, Any],
    faces: pl.DataFrame,
    windows: list[export.Window],
    options: ClipOptions,
) -> None:
    # Without the option, keep videos that a user copied there.
    if not options.movies:
        return
    folder = home.media / VIDEOS
    names = {f"{one.track_id}.webm" for one in windows}
    for path in folder.glob(f"{video['video_id']}-*.webm"):
        if path.name not in names:
            atomic.remove(path)
    if windows:
        export.write_videos(video["uri"], windows, faces, folder, blur=options.blur_bystanders)


def _fingerprint(
    video: dict[str, Any], faces: pl.DataFrame, rated: pl.DataFrame, options: ClipOptions
) -> str:
    """Hash the faces, ratings, transcript and options of a video."""
    transcript = video["transcript"]
    parts = [METHOD, json.dumps(asdict(options), sort_keys=True)]
    parts += [file_sha256(str(transcript))] if transcript else []
    boxes = faces.select("face_id", "bbox", "verdict").write_ndjson() if options.movies else ""
    ratings = rated.select("face_id", "rater_id", "au", "expression").write_ndjson()
    return sha256_of([text.encode() for text in (*parts, boxes, ratings)])[:16]
