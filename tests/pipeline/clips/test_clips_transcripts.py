"""Transcripts of three formats, whole and damaged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.clips.transcripts import Cue, cut, read, transcript_of
from warehouse.errors import MediaError

SRT = """1
00:00:01,500 --> 00:00:02,250
Hello <i>there</i>,
you.

2
00:01:00,0 --> 01:00:00,000
{\\an8}Late &amp; long
"""
VTT = """WEBVTT - title

NOTE nothing

STYLE
::cue {}

id
00:01.500 --> 00:02.250 align:start
<v Ann>Hello there,
you.

01:00.000 --> 01:00:00.000
Late &amp; long
"""
WHISPER = {
    "text": "all",
    "segments": [
        {"id": 0, "start": 1.5, "end": 2.25, "text": " Hello there, you."},
        {"start": 60, "end": 3600.0, "text": "Late & long"},
    ],
}
TRUTH = [Cue(1.5, 2.25, "Hello there, you."), Cue(60.0, 3600.0, "Late & long")]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.srt", SRT),
        ("a.srt", "\ufeff" + SRT.replace("\n", "\r\n")),
        ("a.vtt", VTT),
        ("a.json", json.dumps(WHISPER)),
        ("a.json", json.dumps(WHISPER["segments"][::-1])),
    ],
)
def test_read__three_formats(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_bytes(text.encode())
    assert read(tmp_path / name) == TRUTH


def test_read__encodings(tmp_path: Path) -> None:
    text = SRT.replace("Hello", "Übel")
    path = tmp_path / "a.srt"
    path.write_bytes(text.encode("utf-16"))
    assert "Übel" in read(path)[0].text
    path.write_bytes(text.encode("cp1252"))
    with pytest.raises(MediaError, match="UnicodeDecodeError"):
        read(path)


def test_read__whisper_words(tmp_path: Path) -> None:
    words = [{"word": " Hello", "start": 1, "end": 1.5}, {"word": " you", "start": 2, "end": 2.5}]
    segment = {"start": 1, "end": 2.5, "text": "Hello you", "words": words}
    (tmp_path / "a.json").write_text(json.dumps({"segments": [segment]}))
    said = read(tmp_path / "a.json")
    assert [one.text for one in cut(said, start_s=1.6, end_s=9)] == ["you"]


@pytest.mark.parametrize(
    ("start", "end", "n"), [(0, 1.5, 0), (0, 1.6, 1), (2.25, 60, 0), (2, 61, 2), (3600, 9999, 0)]
)
def test_cut__overlap(start: float, end: float, n: int) -> None:
    assert len(cut(TRUTH, start_s=start, end_s=end)) == n


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.srt", "these are no cues\n"),
        ("a.vtt", "no head and no cue"),
        ("a.json", "{"),
        ("a.json", '{"segments": [{"start": "x", "end": 1, "text": "a"}]}'),
        ("a.json", '{"segments": [{"start": 0, "end": 1}]}'),
        ("a.json", '{"segments": [{"start": NaN, "end": 1, "text": "a"}]}'),
        ("a.json", '{"other": 1}'),
        ("a.json", "[1]"),
        ("a.json", "7"),
    ],
)
def test_read__invalid_transcript(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(MediaError, match="bad_transcript"):
        read(tmp_path / name)


@pytest.mark.parametrize(("name", "text"), [("a.srt", ""), ("a.vtt", "WEBVTT\n"), ("a.json", "[]")])
def test_read__empty_transcript(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert read(tmp_path / name) == []


def test_read__reversed_times(tmp_path: Path) -> None:
    (tmp_path / "a.srt").write_text("00:00:05,000 --> 00:00:04,000\ncafé\n")
    (one,) = read(tmp_path / "a.srt")
    assert (one.start_s, one.end_s, one.text) == (5.0, 5.0, "café")


@pytest.mark.parametrize(
    ("there", "found"),
    [
        (("clip.srt",), "clip.srt"),
        (("clip.mp4.json", "clip.json"), "clip.json"),
        (("clip.vtt", "clip.json"), "clip.vtt"),
        (("other.srt",), None),
    ],
)
def test_transcript_of__names(tmp_path: Path, there: tuple[str, ...], found: str | None) -> None:
    for name in there:
        (tmp_path / name).touch()
    path = transcript_of(tmp_path / "clip.mp4")
    assert (path and path.name) == found
