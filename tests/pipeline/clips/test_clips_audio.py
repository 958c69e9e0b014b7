"""Sound in the time of its pictures, cut and kept without loss."""

from __future__ import annotations

import av
import numpy as np
import pytest

from pipeline.clips import audio
from tests.media_files import CARPHONE, sound_only
from tests.pipeline.clips.videos_with_sound import beeping
from warehouse.errors import MediaError


def loud(samples: np.ndarray) -> tuple[float, float]:
    """First and last second at which it is not silent."""
    at = np.flatnonzero(np.abs(samples) > 3000) / audio.RATE
    return float(at[0]), float(at[-1])


@pytest.mark.parametrize(("late", "rate"), [(0.0, 44_100), (0.5, 48_000), (0.0, 8_000)])
def test_load__sound_in_video_time(tmp_path, late: float, rate: int) -> None:
    path = beeping(tmp_path / "a.mp4", seconds=3, beep=(1.0, 1.5), late_s=late, rate=rate)
    start, end = loud(audio.load(str(path)))
    assert start == pytest.approx(1.0 + late, abs=0.02)
    assert end == pytest.approx(1.5 + late, abs=0.02)


def test_write__lossless_and_deterministic(tmp_path) -> None:
    whole = (9000 * np.sin(np.arange(48_000) / 7)).astype(np.int16)
    piece = audio.cut(whole, start_s=0.5, end_s=1.25)
    assert len(piece) == 12_000
    audio.write(tmp_path / "a.flac", piece)
    audio.write(tmp_path / "b.flac", piece)
    assert (tmp_path / "a.flac").read_bytes() == (tmp_path / "b.flac").read_bytes()
    with av.open(str(tmp_path / "a.flac")) as container:
        assert container.streams.audio[0].rate == audio.RATE
        back = np.concatenate([part.to_ndarray().ravel() for part in container.decode(audio=0)])
    assert np.array_equal(back, piece)


@pytest.mark.parametrize(("start", "end", "n"), [(-1, 0.1, 1600), (0.9, 5, 1600), (2, 3, 0)])
def test_cut__beyond_the_sound(start: float, end: float, n: int) -> None:
    assert len(audio.cut(np.zeros(16_000, np.int16), start_s=start, end_s=end)) == n


def test_load__no_sound_or_no_video(tmp_path) -> None:
    with pytest.raises(MediaError, match="no_sound"):
        audio.load(str(CARPHONE))
    with pytest.raises(MediaError, match="no_video_stream"):
        audio.load(str(sound_only(tmp_path / "a.mp4")))
