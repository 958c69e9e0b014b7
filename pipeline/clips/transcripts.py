"""Read transcripts and call speech recognisers.

Formats: SubRip, WebVTT, Whisper JSON. No recogniser is shipped. A plug-in is a callable that
takes float32[n] in [-1, 1], mono, and its rate in hertz, and returns segments: mappings or
objects with ``start``, ``end`` (seconds) and ``text``. A package registers it under the entry
point group ``risorius.speech``; ``RISORIUS_SPEECH`` selects it.
"""

from __future__ import annotations

import html
import importlib.metadata
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from warehouse import plugins, sidecar
from warehouse.errors import MediaError, ModelError, SettingsError

ENTRY_POINTS = "risorius.speech"

Recogniser = Callable[[np.ndarray, int], Iterable[Any]]

SUFFIXES = (".srt", ".vtt", ".json")
"""In order of preference, if several lie beside a video."""

_MAX_BYTES = 64 << 20

_TIME = r"(?:(\d+):)?(\d{1,2}):(\d{1,2})[.,](\d{1,3})"
_CUE = re.compile(rf"^\s*{_TIME}\s*-->\s*{_TIME}")
_TAGS = re.compile(r"<[^>]*>|\{\\[^}]*\}")
_NO_CUES = re.compile(r"^(WEBVTT|NOTE|STYLE|REGION)\b")


@dataclass(frozen=True, order=True)
class Cue:
    """A stretch of speech, in seconds from the first frame."""

    start_s: float
    end_s: float
    text: str


def transcript_of(video: Path) -> Path | None:
    """Return the transcript beside a video, such as ``clip.srt``, if any."""
    for suffix in SUFFIXES:
        for path in (video.with_suffix(suffix), video.with_name(video.name + suffix)):
            if path != video and path.is_file():
                return path
    return None


def read(path: Path) -> list[Cue]:
    """Read the cues of a transcript, by time, without markup and empty cues.

    Whisper's JSON is an object with ``segments`` or a list, of objects with ``start``, ``end``
    (seconds) and ``text``. If a segment has ``words``, they become cues, which are cut more
    finely.

    Raises:
        MediaError: the file cannot be read or has no cue of its format.
    """
    is_json = path.suffix.lower() == ".json"
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ValueError(f"more than {_MAX_BYTES >> 20} MB")
        # Strict: words of another encoding would reach annotators as boxes.
        text = sidecar.decode(path.read_bytes())
        found = list(_json_cues(text) if is_json else _text_cues(text))
        if not (is_json or found or _NO_CUES.match(text)) and text.strip():
            raise ValueError("no cues")
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise MediaError(
            f"{path.name} is not a {path.suffix} transcript",
            got=f"bad_transcript: {type(error).__name__}: {error}",
            hint="save the transcript as UTF-8, or remove it",
        ) from None
    return sorted(cue for cue in found if cue.text)


def cut(cues: Iterable[Cue], *, start_s: float, end_s: float) -> list[Cue]:
    """Return the cues that overlap a time range, uncut."""
    return [cue for cue in cues if cue.start_s < end_s and cue.end_s > start_s]


def load_recogniser(name: str) -> Recogniser:
    """Load a recogniser by entry point name or ``package.module:callable``.

    Raises:
        SettingsError: no recogniser is registered under this name.
        ModelError: it cannot be imported or is not callable.
    """
    registered = {
        point.name: point for point in importlib.metadata.entry_points(group=ENTRY_POINTS)
    }
    try:
        if name in registered:
            found = registered[name].load()
        elif ":" in name:
            found = plugins.resolve(name, hint="correct RISORIUS_SPEECH, or fix its package")
        else:
            raise SettingsError(
                "The speech recogniser is not installed "
                f"(installed: {', '.join(sorted(registered)) or 'none'})",
                got=repr(name),
                hint="install a package that registers it, or set RISORIUS_SPEECH to another "
                "name or to package.module:callable",
            )
    except (ImportError, AttributeError) as error:
        raise ModelError(
            f"The recogniser {name} cannot be imported", got=str(error), hint="fix its package"
        ) from error
    if not callable(found):
        raise ModelError(
            f"The recogniser {name} is not callable",
            got=type(found).__name__,
            hint="name a function",
        )
    return found


def recognise(recogniser: Recogniser, samples: np.ndarray, rate: int, *, name: str) -> list[Cue]:
    """Run a recogniser and return its segments as cues, by time.

    Args:
        samples: float32[n] in [-1, 1].

    Raises:
        ModelError: it fails or does not return segments.
    """
    try:
        return sorted(cue for cue in map(_cue, recogniser(samples, rate)) if cue.text)
    except Exception as error:  # a plug-in may raise any type
        raise ModelError(
            f"The recogniser {name} returned no segments with start, end and text",
            got=f"{type(error).__name__}: {error}",
            hint="fix the plug-in, or unset RISORIUS_SPEECH",
        ) from error


def _text_cues(text: str) -> Iterator[Cue]:
    lines = iter(text.splitlines())
    for line in lines:
        if match := _CUE.match(line):
            spoken = []
            for following in lines:
                if not following.strip():
                    break
                spoken.append(following)
            start, end = _seconds(match.groups()[:4]), _seconds(match.groups()[4:])
            yield Cue(start, max(start, end), _plain(" ".join(spoken)))


def _seconds(parts: tuple[str | None, ...]) -> float:
    hours, minutes, seconds, thousandths = parts
    fraction = int((thousandths or "0").ljust(3, "0")) / 1000
    return 3600 * int(hours or 0) + 60 * int(minutes or 0) + int(seconds or 0) + fraction


def _json_cues(text: str) -> Iterator[Cue]:
    document = json.loads(text)
    for segment in document["segments"] if isinstance(document, dict) else document:
        yield from map(_cue, segment.get("words") or [segment])


def _cue(segment: Any) -> Cue:
    def first_of(*names: str) -> Any:
        for name in names:
            value = segment.get(name) if isinstance(segment, dict) else getattr(segment, name, None)
            if value is not None:
                return value
        raise KeyError(f"{names[0]} in {segment!r:.80}")

    start, end = float(first_of("start", "start_s")), float(first_of("end", "end_s"))
    if not (math.isfinite(start) and math.isfinite(end)):
        raise ValueError(f"times {start} and {end}")
    return Cue(start, max(start, end), _plain(str(first_of("text", "word"))))


def _plain(text: str) -> str:
    return " ".join(html.unescape(_TAGS.sub("", text)).split())
