"""Short videos show the right seconds and only the subject's face."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import polars as pl
import pytest

from pipeline.clips.export import LONGEST_S, SIDE, Window, window, write_videos
from tests.pipeline.clips.videos_with_sound import beeping

NOISE = np.random.default_rng(2).integers(0, 255, (60, 60, 3), dtype=np.uint8)


def two_people(now: float) -> np.ndarray:
    """Draw a gray image with one still and one moving noise patch."""
    image = np.full((240, 480, 3), 120, dtype=np.uint8)
    image[90:150, 60:120] = NOISE
    left = right_of(now)
    image[90:150, left : left + 60] = NOISE
    return image


def right_of(now: float) -> int:
    return 124 + int(6 * now)


def sights(every_s: float = 0.2) -> pl.DataFrame:
    """Where both were seen, five times a second."""
    times = np.arange(0, 4, every_s)
    rows = [{"track_id": "v-0000", "time_s": t, "bbox": [60.0, 90.0, 60.0, 60.0]} for t in times]
    rows += [
        {"track_id": "v-0001", "time_s": t, "bbox": [float(right_of(t)), 90.0, 60.0, 60.0]}
        for t in times
    ]
    return pl.DataFrame(rows, schema_overrides={"bbox": pl.Array(pl.Float32, 4)})


def frames(path: Path) -> list[tuple[float, np.ndarray]]:
    with av.open(str(path)) as container:
        assert not container.streams.audio
        assert container.streams.video[0].codec_context.name == "vp8"
        return [(f.time, f.to_ndarray(format="rgb24")) for f in container.decode(video=0)]


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("film")
    return beeping(folder / "two.mp4", seconds=4, beep=(0, 1), draw=two_people)


@pytest.mark.parametrize("blur", [True, False])
def test_write_videos__blurs_bystanders(film: Path, tmp_path: Path, blur: bool) -> None:
    windows = [Window("v-0000", 0.5, 3.0), Window("v-0001", 0.0, 2.0)]
    assert write_videos(str(film), windows, sights(), tmp_path, blur=blur) == 2
    shown = frames(tmp_path / "v-0000.webm")
    assert shown[0][0] == 0
    assert shown[-1][0] == pytest.approx(2.5, abs=0.11)
    # 1.8 times the box of 60 px: 108 px around its middle, so from x = 36 and y = 66.
    assert shown[0][1].shape == (108, 108, 3)
    seen = 0
    for moment, image in shown:
        own = image[34:74, 34:74]
        assert own.std() > 40
        left = right_of(moment + 0.5) - 36
        if left + 15 < 108:
            other = image[34:74, left + 5 : min(left + 55, 108)]
            seen += 1
            assert (other.std() < 25) == blur, (moment, other.std())
    assert seen >= 3


def test_write_videos__deterministic_and_bounded(film: Path, tmp_path: Path) -> None:
    # Seen far apart, so the picture must hold the whole way.
    wide = [Window("v-0001", 0.0, 3.8)]
    for folder in ("a", "b"):
        write_videos(str(film), wide, sights(), tmp_path / folder, blur=True)
    first = (tmp_path / "a" / "v-0001.webm").read_bytes()
    assert first == (tmp_path / "b" / "v-0001.webm").read_bytes()
    assert max(frames(tmp_path / "a" / "v-0001.webm")[0][1].shape) <= SIDE
    assert len(list(tmp_path.rglob("*"))) == 4


def test_write_videos__truncated_video(film: Path, tmp_path: Path) -> None:
    (tmp_path / "half.mp4").write_bytes(film.read_bytes()[:2000])
    windows = [Window("v-0000", 0.0, 3.0)]
    assert (
        write_videos(str(tmp_path / "half.mp4"), windows, sights(), tmp_path / "out", blur=True)
        == 0
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("last", "apex", "span"),
    [
        (5.0, None, (0.0, 5.0)),
        (30.0, None, (11.0, 19.0)),
        (30.0, 4.5, (0.5, 8.5)),
        (30.0, 1.0, (0.0, 8.0)),
        (30.0, 29.0, (22.0, 30.0)),
    ],
)
def test_window__long_track(last: float, apex: float | None, span: tuple) -> None:
    found = window("t", np.array([0.0, last]), apex_s=apex)
    assert (found.start_s, found.end_s) == span
    assert found.end_s - found.start_s <= LONGEST_S
