"""What is said in a video, from a transcript beside it: SubRip, WebVTT or Whisper's JSON."""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from warehouse.errors import MediaError

SUFFIXES = (".srt", ".vtt", ".json")
"""In this order: the first that lies beside a video counts."""

_MOST_BYTES = 64 << 20

_TIME = r"(?:(\d+):)?(\d{1,2}):(\d{1,2})[.,](\d{1,3})"
_CUE = re.compile(rf"^\s*{_TIME}\s*-->\s*{_TIME}")
_TAGS = re.compile(r"<[^>]*>|\{\\[^}]*\}")
_NO_CUES = re.compile(r"^(WEBVTT|NOTE|STYLE|REGION)\b")


@dataclass(frozen=True, order=True)
class Said:
    """One thing said, in seconds from the first picture."""

    start_s: float
    end_s: float
    text: str


def transcript_of(video: Path) -> Path | None:
    """The transcript beside a video, ``clip.srt`` or ``clip.mp4.srt`` for ``clip.mp4``, if any."""
    for suffix in SUFFIXES:
        for path in (video.with_suffix(suffix), video.with_name(video.name + suffix)):
            if path != video and path.is_file():
                return path
    return None


def read(path: Path) -> list[Said]:
    """Everything a transcript says, by time; markup is taken off, empty cues are left out.

    Whisper's JSON is an object with ``segments`` or a list, of objects with ``start``, ``end``
    (seconds) and ``text``; where a segment has ``words``, those are taken, for they cut better.

    Raises:
        MediaError: the file cannot be read or holds no cue of its format.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise _unfit(path, f"more than {_MOST_BYTES >> 20} MB")
        text = path.read_text(encoding="utf-8-sig", errors="replace")
        found = list(_json(text) if path.suffix.lower() == ".json" else _cues(text))
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise _unfit(path, f"{type(error).__name__}: {error}") from None
    is_json = path.suffix.lower() == ".json"
    if not (is_json or found or _NO_CUES.match(text)) and text.strip():
        raise _unfit(path, "none")
    return sorted(said for said in found if said.text)


def cut(said: Iterable[Said], *, start_s: float, end_s: float) -> list[Said]:
    """What was said at any moment between two seconds; a cue is kept whole."""
    return [one for one in said if one.start_s < end_s and one.end_s > start_s]


def checked(segments: Iterable[Any]) -> list[Said]:
    """Segments from elsewhere, mappings or objects with ``start``, ``end`` and ``text``.

    Raises:
        ValueError, TypeError, KeyError, AttributeError: one is something else, or its times are
            no times.
    """
    return sorted(said for segment in segments if (said := _said(segment)).text)


def _cues(text: str) -> Iterator[Said]:
    lines = iter(text.splitlines())
    for line in lines:
        if cue := _CUE.match(line):
            spoken = []
            for following in lines:
                if not following.strip():
                    break
                spoken.append(following)
            start, end = _seconds(cue.groups()[:4]), _seconds(cue.groups()[4:])
            yield Said(start, max(start, end), _plain(" ".join(spoken)))


def _seconds(parts: tuple[str | None, ...]) -> float:
    hours, minutes, seconds, thousandths = parts
    fraction = int((thousandths or "0").ljust(3, "0")) / 1000
    return 3600 * int(hours or 0) + 60 * int(minutes or 0) + int(seconds or 0) + fraction


def _json(text: str) -> Iterator[Said]:
    document = json.loads(text)
    for segment in document["segments"] if isinstance(document, dict) else document:
        yield from map(_said, segment.get("words") or [segment])


def _said(segment: Any) -> Said:
    def take(*names: str) -> Any:
        for name in names:
            value = segment.get(name) if isinstance(segment, dict) else getattr(segment, name, None)
            if value is not None:
                return value
        raise KeyError(f"{names[0]} in {segment!r:.80}")

    start, end = float(take("start", "start_s")), float(take("end", "end_s"))
    if not (math.isfinite(start) and math.isfinite(end)):
        raise ValueError(f"times {start} and {end}")
    return Said(start, max(start, end), _plain(str(take("text", "word"))))


def _plain(text: str) -> str:
    return " ".join(html.unescape(_TAGS.sub("", text)).split())


def _unfit(path: Path, got: str) -> MediaError:
    return MediaError(
        f"cues of {path.suffix} in {path.name}",
        got=f"bad_transcript: {got}",
        hint="mend the transcript or remove it",
    )
