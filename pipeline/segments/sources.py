"""Find the segments of a video: sidecar, transcript, windows, shots."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from pipeline.clips import transcripts
from pipeline.ingest.names import key_of
from pipeline.video import reader
from warehouse.errors import MediaError, SettingsError
from warehouse.sidecar import SEGMENTS as SIDECAR
from warehouse.sidecar import SidecarTable, read_csv

KINDS = ("utterance", "turn", "span", "clip")

COLUMNS = {
    "video": ("video", "file_name", "file", "video_name", "path"),
    "start_s": ("start_s", "start", "begin", "onset", "start_time", "starttime", "begin_time"),
    "end_s": ("end_s", "end", "stop", "offset", "end_time", "endtime"),
    "kind": ("kind", "type"),
    "dialogue_id": ("dialogue_id", "dialogue", "dialog", "conversation"),
    "turn": ("turn", "utterance_id", "utterance"),
    "speaker": ("speaker",),
    "role": ("role",),
    "transcript": ("transcript", "text", "sentence"),
    "language": ("language", "lang"),
    "subject_ids": ("subject_ids", "subject_id", "subjects", "subject"),
}
"""Columns of a sidecar, and the names they are known by."""

_CLOCK = re.compile(r"^(?:(\d+):)?(\d{1,2}):(\d{1,2}(?:[.,]\d+)?)$")
_TOLERANCE_S = 0.1
"""Times of people and players are rarely exact to the frame."""


@dataclass(frozen=True)
class Segment:
    """A stretch of a video, in seconds from the first frame.

    Attributes:
        fault: why it cannot be used; None if it can.
        note: remark about a segment that is used.
    """

    start_s: float | None
    end_s: float | None
    kind: str
    source: str
    dialogue_id: str | None = None
    turn: int | None = None
    speaker: str | None = None
    role: str | None = None
    transcript: str | None = None
    language: str | None = None
    subject_ids: tuple[str, ...] = ()
    fault: str | None = None
    note: str | None = None


def sidecar_of(video: Path) -> tuple[Path, ...]:
    """Return the sidecars that may name a video: its own, then the folder's."""
    own = (video.with_name(f"{video.stem}.{SIDECAR}"), video.with_name(f"{video.name}.{SIDECAR}"))
    return tuple(path for path in (*own, video.with_name(SIDECAR)) if path.is_file())


def from_sidecar(path: Path, video: Path) -> list[Segment]:
    """Read the rows of a sidecar that are about one video.

    Columns are matched without case and blanks. Times are seconds or ``h:mm:ss.mmm``. A row that
    cannot be read becomes a segment with a fault; rows of other videos are skipped.

    Raises:
        MediaError: the file cannot be read, or lacks a column for the video, start or end.
    """
    table = _read(path)
    of_one = path.name != SIDECAR
    needed = ("start_s", "end_s") if of_one else ("video", "start_s", "end_s")
    if table.rows and (missing := [name for name in needed if name not in table.columns]):
        found = ", ".join(sorted(table.columns))
        raise MediaError(
            f"{path.name} lacks columns",
            got=f"bad_segments: no {', '.join(missing)}; found {found}",
            hint="write one row per segment with video, start, end",
        )
    return [_segment(row) for row in table.rows if of_one or _is_of(row.get("video"), video)]


def unmatched(path: Path, videos: Iterable[Path]) -> list[str]:
    """Return the videos that a folder's sidecar names and that are not there."""
    named = {row.get("video") or "" for row in _read(path).rows}
    known = list(videos)
    return sorted(name for name in named if not any(_is_of(name, video) for video in known))


def from_transcript(path: Path) -> list[Segment]:
    """Return one utterance per cue of a transcript.

    Raises:
        MediaError: the transcript cannot be read.
    """
    cues = transcripts.read(path)
    return [
        Segment(cue.start_s, cue.end_s, "utterance", "transcript", turn=number, transcript=cue.text)
        for number, cue in enumerate(cues)
    ]


def windows(duration_s: float, length_s: float) -> list[Segment]:
    """Return windows of equal length; a shorter rest is left out."""
    count = math.floor((duration_s + 1e-6) / length_s)
    return [
        Segment(number * length_s, (number + 1) * length_s, "span", "windows")
        for number in range(count)
    ]


def shots(path: str, duration_s: float) -> list[Segment]:
    """Return the stretches between cuts, exact to the frame."""
    cuts = [frame.time_s for frame in reader.sample(path, fps=1000.0) if frame.cut]
    edges = [0.0, *(time for time in cuts if 0 < time < duration_s), duration_s]
    return [Segment(start, end, "span", "shots") for start, end in pairwise(edges) if end > start]


def checked(segments: Iterable[Segment], *, duration_s: float | None) -> list[Segment]:
    """Return segments by start, with faults and notes about their times.

    A segment that reaches beyond the end of the video is cut there, with a note. Turns that
    overlap stay as they are, with a note: people interrupt each other.

    Args:
        duration_s: of the video; None if unknown.
    """
    found = [_checked(one, duration_s) for one in segments]
    found.sort(key=lambda one: (one.start_s is None, one.start_s or 0.0, one.end_s or 0.0))
    latest: Segment | None = None
    marked = []
    for one in found:
        if one.fault is None and one.kind in ("turn", "utterance"):
            if latest is not None and _overlap(latest, one) > _TOLERANCE_S:
                said = f"overlaps: {_overlap(latest, one):.2f} s with the one before"
                one = replace(one, note=_joined(one.note, said))
            if latest is None or (one.end_s or 0) > (latest.end_s or 0):
                latest = one
        marked.append(one)
    return marked


def _checked(one: Segment, duration_s: float | None) -> Segment:
    start, end = one.start_s, one.end_s
    if one.fault or start is None or end is None:
        return one
    said = f"{start:g} to {end:g} s"
    if not (math.isfinite(start) and math.isfinite(end)):
        return replace(one, fault=f"bad_times: {said}")
    if end < start:
        return replace(one, fault=f"ends_before_start: {said}")
    if end == start:
        return replace(one, fault=f"empty: {said}")
    if start < -_TOLERANCE_S or (duration_s is not None and start >= duration_s):
        return replace(one, fault=f"outside_video: {said} of {duration_s or 0:g} s")
    if duration_s is None or end <= duration_s:
        return replace(one, start_s=max(0.0, start))
    note = f"cut_at_end: {said} of {duration_s:g} s" if end > duration_s + _TOLERANCE_S else None
    return replace(one, start_s=max(0.0, start), end_s=duration_s, note=_joined(one.note, note))


def _overlap(before: Segment, after: Segment) -> float:
    return (before.end_s or 0.0) - (after.start_s or 0.0)


def _joined(*notes: str | None) -> str | None:
    return "; ".join(note for note in notes if note) or None


def _read(path: Path) -> SidecarTable:
    """Return the rows of a sidecar by our column names.

    Raises:
        MediaError: the file is no table of segments.
    """
    try:
        return read_csv(path, COLUMNS)
    except SettingsError as error:
        raise MediaError(
            f"{path.name} is not a table of segments",
            got=f"bad_segments: {error.problem}: {error.got}",
            hint=error.hint,
        ) from None


def _is_of(name: str | None, video: Path) -> bool:
    wanted = key_of(name or "").rsplit("/", 1)[-1]
    return wanted in (key_of(video.name), key_of(video.stem))


def _segment(row: Mapping[str, str]) -> Segment:
    faults: list[str] = []

    def read(column: str, parse: Any) -> Any:
        if column not in row:
            faults.append(f"no {column}")
            return None
        try:
            return parse(row[column])
        except ValueError:
            faults.append(f"{column} {row[column]!r}")
            return None

    start, end = read("start_s", seconds), read("end_s", seconds)
    turn = read("turn", int) if "turn" in row else None
    kind = row.get("kind", "turn" if "dialogue_id" in row or "turn" in row else "utterance").lower()
    if kind not in KINDS:
        faults.append(f"kind {kind!r} is none of {', '.join(KINDS)}")
    return Segment(
        start,
        end,
        kind if kind in KINDS else "span",
        "sidecar",
        turn=turn,
        dialogue_id=row.get("dialogue_id"),
        speaker=row.get("speaker"),
        role=row.get("role"),
        transcript=row.get("transcript"),
        language=row.get("language"),
        subject_ids=tuple(filter(None, re.split(r"[;, ]+", row.get("subject_ids", "")))),
        fault=f"bad_row: {'; '.join(faults)}" if faults else None,
    )


def seconds(text: str) -> float:
    """Return a time in seconds, given as seconds or ``h:mm:ss.mmm``.

    Raises:
        ValueError: it is neither.
    """
    if found := _CLOCK.match(text.strip()):
        hours, minutes, rest = found.groups()
        return 3600 * int(hours or 0) + 60 * int(minutes) + float(rest.replace(",", "."))
    value = float(text.replace(",", "."))
    if not math.isfinite(value):
        raise ValueError(text)
    return value
