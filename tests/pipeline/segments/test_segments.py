"""Segments: where they come from, their times, their video and sound."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import polars as pl
import pytest

from pipeline.clips import audio
from pipeline.segments import batch as stage
from pipeline.segments import media, sources
from pipeline.segments.sources import Segment, checked, from_sidecar, seconds
from warehouse.errors import MediaError
from warehouse.storage import tables
from warehouse.storage.home import Home
from warehouse.storage.schema import TABLES

FPS, SECONDS = 25, 4


def gray_video(path: Path, *, cut_at: int | None = None) -> Path:
    """Write 4 s whose brightness counts frames, with a tone from 2 s on."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        sound = container.add_stream("aac", rate=16000, layout="mono")
        for index in range(FPS * SECONDS):
            image = np.full((48, 64, 3), 20 + 2 * index, np.uint8)
            if cut_at is not None and index >= cut_at:
                image = np.full((48, 64, 3), 240, np.uint8)
                image[::4] = 0
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
        times = np.arange(16000 * SECONDS) / 16000
        tone = (0.5 * np.sin(2 * np.pi * 440 * times) * (times >= 2)).astype(np.float32)
        for start in range(0, len(tone), 1024):
            part = np.ascontiguousarray(tone[None, start : start + 1024])
            frame = av.AudioFrame.from_ndarray(part, "fltp", "mono")
            frame.sample_rate, frame.pts = 16000, start
            container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    return path


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return gray_video(tmp_path_factory.mktemp("videos") / "talk.mp4")


def brightness(path: Path) -> list[float]:
    with av.open(str(path)) as container:
        return [float(f.to_ndarray(format="gray").mean()) for f in container.decode(video=0)]


def home_of(tmp_path: Path, video: Path, **facts: object) -> Home:
    """Return a home that knows one video."""
    home = Home.at(tmp_path / "home")
    row = {
        "video_id": "v0", "uri": str(video), "batch": "b", "sha256": "0", "duration_s": 4.0,
        "fps": 25.0, "width": 64, "height": 48, "has_audio": True, "subject_id": "p1",
        "verdict": "kept", **facts,
    }  # fmt: skip
    frame = pl.DataFrame([row], schema=TABLES["videos"].schema)
    tables.write(home, "videos", frame, part="v0", batch="b")
    return home


@pytest.mark.parametrize(
    ("text", "value"), [("1.5", 1.5), ("1,5", 1.5), ("0:01.5", 1.5), ("1:02:03.25", 3723.25)]
)
def test_seconds__reads_numbers_and_clocks(text: str, value: float) -> None:
    assert seconds(text) == value


@pytest.mark.parametrize("text", ["", "soon", "nan", "inf", "1:2:3:4"])
def test_seconds__refuses_other_texts(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        seconds(text)


@pytest.mark.parametrize(
    "text",
    [
        "video,start,end,speaker,dialogue,turn,transcript\ntalk.mp4,1,2,Ann,d1,0,Hello\n",
        "\ufeffFile Name;Start Time;END;Speaker;Dialog;Turn;Text\ntalk;1,0;0:02;Ann;d1;0;Hello\n",
        "path\tbegin\tstop\tspeaker\tdialog\tturn\tsentence\n.\\talk.mp4\t1.0\t2.0\tAnn\td1\t0\tHello\n",
    ],
)  # fmt: skip
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_sidecar__columns_by_any_of_their_names(tmp_path: Path, text: str, encoding: str) -> None:
    path = tmp_path / "segments.csv"
    path.write_bytes(text.encode(encoding))
    (one,) = from_sidecar(path, tmp_path / "talk.mp4")
    assert (one.start_s, one.end_s, one.speaker, one.kind) == (1.0, 2.0, "Ann", "turn")
    assert (one.dialogue_id, one.turn, one.transcript, one.fault) == ("d1", 0, "Hello", None)
    assert from_sidecar(path, tmp_path / "other.mp4") == []
    assert sources.unmatched(path, [tmp_path / "other.mp4"]) != []
    assert sources.unmatched(path, [tmp_path / "talk.mp4"]) == []


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ("talk.mp4,2,1,", "ends_before_start: 2 to 1 s"),
        ("talk.mp4,1,1,", "empty: 1 to 1 s"),
        ("talk.mp4,5,6,", "outside_video: 5 to 6 s of 4 s"),
        ("talk.mp4,-3,1,", "outside_video: -3 to 1 s of 4 s"),
        ("talk.mp4,soon,1,", "bad_row: start_s 'soon'"),
        ("talk.mp4,,1,", "bad_row: no start_s"),
        ("talk.mp4,0,1,laugh", "bad_row: kind 'laugh' is none of utterance, turn, span, clip"),
    ],
)
def test_sidecar__a_bad_row_says_what_is_wrong(tmp_path: Path, row: str, fault: str) -> None:
    path = tmp_path / "segments.csv"
    path.write_text(f"video,start,end,kind\n{row}\n")
    (one,) = checked(from_sidecar(path, tmp_path / "talk.mp4"), duration_s=4.0)
    assert one.fault == fault


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"video,start\ntalk.mp4,1\n", "no end_s; found start_s, video"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "bad_segments"),
        (b'video,start,end\n"talk.mp4,1,2\n', "bad_segments"),
    ],
)
def test_sidecar__unreadable_files_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "segments.csv"
    path.write_bytes(content)
    with pytest.raises(MediaError, match=message):
        from_sidecar(path, tmp_path / "talk.mp4")


def test_checked__notes_overlaps_and_cuts_at_the_end() -> None:
    found = checked(
        [Segment(3, 9, "turn", "sidecar"), Segment(0, 3.5, "turn", "sidecar")], duration_s=4.0
    )
    assert [(one.start_s, one.end_s, one.fault) for one in found] == [(0, 3.5, None), (3, 4, None)]
    assert found[1].note == "cut_at_end: 3 to 9 s of 4 s; overlaps: 0.50 s with the one before"


def test_windows__leave_out_the_rest() -> None:
    assert [(one.start_s, one.end_s) for one in sources.windows(11.0, 5.0)] == [(0, 5), (5, 10)]


def test_shots__exact_to_the_frame(tmp_path: Path) -> None:
    path = gray_video(tmp_path / "cut.mp4", cut_at=60)
    assert [(one.start_s, one.end_s) for one in sources.shots(str(path), 4.0)] == [
        (0.0, pytest.approx(2.4)), (pytest.approx(2.4), 4.0)
    ]  # fmt: skip


def test_cut__frames_and_sound_of_the_segment(tmp_path: Path, video: Path) -> None:
    samples = audio.load(str(video))
    cuts = [
        media.Cut(tmp_path / "a.mp4", 1.0, 2.0, frozenset()),
        media.Cut(tmp_path / "b.mp4", 1.6, 3.02, frozenset()),
        media.Cut(tmp_path / "late.mp4", 9.0, 10.0, frozenset()),
    ]
    failed = media.cut_videos(str(video), cuts, tracks={}, blur=True, samples=samples)
    assert failed == {tmp_path / "late.mp4": "no_frame: no frame lies in it"}
    whole = brightness(video)
    for cut, first, last in ((cuts[0], 25, 50), (cuts[1], 40, 76)):
        found = brightness(cut.path)
        assert len(found) == last - first
        # One frame more or less would be a step of 2.
        assert abs(np.subtract(found, whole[first:last]).mean()) < 1
    heard = audio.load(str(cuts[1].path))
    level = [np.abs(heard[int(16000 * t) :][:1600]).mean() for t in (0.1, 0.7)]
    assert level[0] < 300 < 3000 < level[1]
    with av.open(str(cuts[1].path)) as container:
        assert container.streams.video[0].codec_context.name == "h264"
        assert float(container.streams.video[0].average_rate or 0) == pytest.approx(25, abs=0.5)


def test_find_segments__rows_media_and_repeat(tmp_path: Path, video: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    source = folder / "talk.mp4"
    source.write_bytes(video.read_bytes())
    sidecar = folder / "segments.csv"
    rows = "talk.mp4,0,1,Ann\ntalk.mp4,2,3,Bo\ntalk.mp4,2,3,Bo\ntalk.mp4,3,2,Bo\n"
    sidecar.write_text(f"video,start,end,speaker\n{rows}")
    home = home_of(tmp_path, source)
    options = stage.SegmentOptions(sound=True)
    assert stage.find_segments(home, "b", options) == 1
    found = tables.read(home, "segments").sort("start_s", "verdict")
    assert found["verdict"].to_list() == ["kept", "dropped", "kept", "failed"]
    kept = found.filter(pl.col("verdict") == "kept")
    assert kept["subject_ids"].to_list() == [["p1"], ["p1"]]
    files = {str(p.relative_to(home.media)) for p in (home.media / "segments").iterdir()}
    assert files == {*kept["video"], *kept["sound"]}
    assert len(audio.load(str(video))[16000:32000]) == 16000
    assert stage.find_segments(home, "b", options) == 0
    before = dict(kept.select("speaker", "segment_id").iter_rows())
    sidecar.write_text(f"video,start,end,speaker\ntalk.mp4,1,2,Cy\n{rows}")
    assert stage.find_segments(home, "b", options) == 1
    after = tables.read(home, "segments").filter(pl.col("verdict") == "kept")
    assert before.items() <= dict(after.select("speaker", "segment_id").iter_rows()).items()
    sidecar.unlink()
    stage.find_segments(home, "b", options)
    assert tables.read(home, "segments").is_empty()
    assert list((home.media / "segments").iterdir()) == []


def test_find_segments__a_damaged_sidecar_is_a_failed_row(tmp_path: Path, video: Path) -> None:
    source = tmp_path / "talk.mp4"
    source.write_bytes(video.read_bytes())
    (tmp_path / "segments.csv").write_text("start,end\n0,1\n")
    home = home_of(tmp_path, source)
    stage.find_segments(home, "b", stage.SegmentOptions())
    (row,) = tables.read(home, "segments").iter_rows(named=True)
    assert (row["verdict"], row["reason"]) == (
        "failed",
        "bad_segments: no video; found end_s, start_s",
    )
