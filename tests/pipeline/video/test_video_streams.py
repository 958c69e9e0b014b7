"""The stream that a player shows is read; its own length counts."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition

from pipeline.video.reader import Outcome, probe, sample
from tests import media_files
from warehouse.errors import MediaError

GRAY = {"small": (48, 64, 60), "large": (96, 128, 180), "other": (96, 128, 120)}
"""Height, width and brightness of streams."""


def muxed(path: Path, streams: list[dict], *, subtitles_s: float | None = None) -> Path:
    """Write streams of plain gray: ``look``, ``frames``, ``codec``, ``mark``."""
    with av.open(str(path), "w") as container:
        made = []
        for one in streams:
            height, width, gray = GRAY[one["look"]]
            codec = one.get("codec", "mpeg4")
            stream = container.add_stream(codec, rate=10)
            pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
            stream.disposition = one.get("mark", Disposition(0))
            made.append((stream, np.full((height, width, 3), gray, np.uint8), one["frames"]))
        subtitles = None
        if subtitles_s is not None:
            path.with_suffix(".srt").write_text(
                f"1\n00:00:00,500 --> 00:00:{subtitles_s:06.3f}\nCredits\n".replace(".", ",")
            )
            subtitles = av.open(str(path.with_suffix(".srt")))
            texts = container.add_stream_from_template(subtitles.streams.subtitles[0])
        for stream, image, frames in made:
            for _ in range(frames):
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        if subtitles is not None:
            for packet in subtitles.demux():
                if packet.dts is not None:
                    packet.stream = texts
                    container.mux(packet)
            subtitles.close()
    return path


def read(path: Path) -> tuple[list, Outcome, str | None]:
    outcome, frames = Outcome(), []
    try:
        for frame in sample(str(path), outcome=outcome):
            frames.append(frame)
    except MediaError as error:
        return frames, outcome, error.got
    return frames, outcome, None


default, cover = Disposition.default, Disposition.attached_pic


@pytest.mark.parametrize(
    ("suffix", "streams", "shown"),
    [
        ("mkv", [{"look": "small"}, {"look": "large", "mark": default}], "large"),
        ("mkv", [{"look": "large"}, {"look": "small", "mark": default}], "small"),
        ("mkv", [{"look": "other", "mark": default}, {"look": "large"}], "other"),
        ("mp4", [{"look": "small", "mark": default}, {"look": "large", "mark": default}], "large"),
        ("mp4", [{"look": "small", "mark": default}, {"look": "large"}], "small"),
        ("mp4", [{"look": "other", "frames": 1}, {"look": "small"}], "small"),
        ("mp4", [{"look": "other", "frames": 4, "mark": default},
                 {"look": "large", "mark": default}], "large"),
        ("mp4", [{"look": "large", "codec": "mjpeg", "mark": cover, "frames": 1},
                 {"look": "small"}], "small"),
        ("ts", [{"look": "small"}, {"look": "large"}], "large"),
    ],
)  # fmt: skip
def test_sample__stream_that_players_show(
    tmp_path: Path, suffix: str, streams: list[dict], shown: str
) -> None:
    path = muxed(tmp_path / f"a.{suffix}", [{"frames": 10, **one} for one in streams])
    frames, outcome, said = read(path)
    height, width, gray = GRAY[shown]
    assert frames[0].image.shape == (height, width, 3)
    assert frames[0].image.mean() == pytest.approx(gray, abs=4)
    assert [frame.time_s for frame in frames] == pytest.approx(np.arange(5) / 5)
    assert (said, outcome.note) == (None, None)


def test_sample__equal_streams(tmp_path: Path) -> None:
    path = muxed(
        tmp_path / "a.mkv", [{"look": "large", "frames": 10}, {"look": "other", "frames": 10}]
    )
    frames, outcome, _ = read(path)
    assert frames[0].image.mean() == pytest.approx(180, abs=4)
    note = "equal_streams: 2 video streams are alike, the first was read; check it"
    assert (probe(str(path)).note, outcome.note) == (note, note)


@pytest.mark.parametrize(
    ("suffix", "more", "subtitles_s"),
    [
        ("mkv", [], 30.0),
        ("mkv", [{"look": "small", "frames": 80}], None),
        ("mp4", [{"look": "small", "frames": 80}], None),
        ("mkv", [{"look": "small", "frames": 80}], 30.0),
    ],
)
def test_sample__other_stream_is_longer(
    tmp_path: Path, suffix: str, more: list[dict], subtitles_s: float | None
) -> None:
    streams = [{"look": "large", "frames": 20, "mark": default}, *more]
    path = muxed(tmp_path / f"a.{suffix}", streams, subtitles_s=subtitles_s)
    frames, outcome, said = read(path)
    assert (len(frames), said) == (10, None)
    assert (probe(str(path)).duration_s, outcome.duration_s) == pytest.approx((2.0, 2.0))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    if suffix == "mkv":
        assert (read(path)[2] or "").startswith("truncated: it ends at")


def test_sample__avi_with_empty_packets(tmp_path: Path) -> None:
    path = tmp_path / "a.avi"
    images = media_files.patterns(40)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        for index, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = 3 * index
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    frames, _, said = read(path)
    assert (len(frames), said) == (20, None)
    assert frames[-1].time_s == pytest.approx(3.8)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    assert (read(path)[2] or "").startswith("truncated: it ends at")


@pytest.mark.parametrize("faststart", [False, True])
def test_sample__edit_list_hides_frames(tmp_path: Path, faststart: bool) -> None:
    """Twelve seconds of samples, two of which an edit list shows."""
    path = tmp_path / "a.mp4"
    images = [np.full((48, 64, 3), 2 * index, np.uint8) for index in range(120)]
    with av.open(
        str(path), "w", options={"movflags": "faststart"} if faststart else {}
    ) as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    data = bytearray(path.read_bytes())
    edits, movie, media, track = (data.index(name) for name in (b"elst", b"mvhd", b"mdhd", b"tkhd"))
    (scale,), (ticks,) = (struct.unpack_from(">I", data, at + 16) for at in (movie, media))
    struct.pack_into(">IiI", data, edits + 12, 2 * scale, 5 * ticks, 0x10000)
    for at in (movie + 20, track + 24):
        struct.pack_into(">I", data, at, 2 * scale)
    path.write_bytes(data)
    frames, outcome, said = read(path)
    assert said is None
    assert (len(frames), outcome.duration_s) == (10, pytest.approx(2.0))
    assert frames[0].image.mean() == pytest.approx(100, abs=4)
    assert probe(str(path)).duration_s == pytest.approx(2.0)
    if faststart:
        path.write_bytes(data[: len(data) * 6 // 10])
        assert (read(path)[2] or "").startswith("truncated: it ends at")


@pytest.mark.parametrize("share", [0.5, 0.9, 0.98])
@pytest.mark.parametrize("suffix", ["mkv", "mp4", "avi", "asf"])
def test_sample__cut_anywhere(tmp_path: Path, suffix: str, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (60, 48, 64, 3), dtype=np.uint8)
    path = tmp_path / f"a.{suffix}"
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("mjpeg", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        for image in noise:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    data = path.read_bytes()
    assert read(path)[2] is None
    path.write_bytes(data[: int(len(data) * share)])
    assert (read(path)[2] or "").startswith("truncated: it ends at")


@pytest.mark.parametrize(
    ("suffix", "codec", "options"),
    [
        ("webm", "libvpx", {"live": "1"}),
        ("mkv", "mpeg4", {"live": "1"}),
        ("flv", "flv", {"flvflags": "no_duration_filesize"}),
        ("mp4", "mpeg4", {"movflags": "frag_keyframe+empty_moov"}),
        ("h264", "libx264", {}),
    ],
)
def test_sample__live_recording(
    tmp_path: Path, suffix: str, codec: str, options: dict[str, str]
) -> None:
    """Without a length in the header it is null until measured."""
    path, target = tmp_path / f"a.{suffix}", io.BytesIO()
    # A stream without seeking, as a browser or a camera writes it.
    target.seek = None  # type: ignore[method-assign, assignment]
    formats = {"mkv": "matroska"}
    with av.open(target, "w", format=formats.get(suffix, suffix), options=options) as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for image in media_files.patterns(20):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    path.write_bytes(target.getvalue())
    frames, outcome, said = read(path)
    assert said is None
    assert [frame.time_s for frame in frames] == pytest.approx(np.arange(10) / 5, abs=2e-3)
    assert outcome.duration_s == pytest.approx(2.0, abs=0.01)
    assert probe(str(path)).duration_s in (None, pytest.approx(2.0, abs=0.11))
