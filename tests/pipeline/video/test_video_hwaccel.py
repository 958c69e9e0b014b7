"""Decoding on a device, as far as it can be seen without one."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from av.codec.hwaccel import HWAccel, hwdevices_available

from pipeline.video import hwaccel as hardware
from pipeline.video import reader
from pipeline.video.shots import gray_plane
from tests import media_files


@pytest.fixture(autouse=True)
def clear_device_cache() -> Iterator[None]:
    asked = hardware.device
    asked.cache_clear()
    yield
    asked.cache_clear()


def test_device__opens_a_decoder() -> None:
    found = hardware.device()
    assert found is None or found in hwdevices_available()
    assert hardware.describe(enabled=False) == "Decoding in software"
    if found is None:
        assert hardware.accelerator() is None
        assert hardware.describe(enabled=True) == "No hardware decoder found; decoding in software"
    else:
        assert hardware.describe(enabled=True) == f"Decoding on {found}"


def test_sample__hardware_without_device() -> None:
    if hardware.device() is not None:
        pytest.skip("there is a device here")
    plain = list(reader.sample(str(media_files.CARPHONE), fps=2.0))
    auto = list(reader.sample(str(media_files.CARPHONE), fps=2.0, hardware=True))
    assert [frame.index for frame in auto] == [frame.index for frame in plain]
    for one, other in zip(auto, plain, strict=True):
        assert np.array_equal(one.image, other.image)


def test_sample__device_that_does_not_open(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if hardware.device() is not None or "cuda" not in hwdevices_available():
        pytest.skip("needs an FFmpeg that knows CUDA and a machine without it")
    # A device that was there when asked and is not now: full, reset, or taken away.
    monkeypatch.setattr(hardware, "device", lambda: "cuda")
    expected = [frame.index for frame in reader.sample(str(media_files.CARPHONE), fps=2.0)]
    with caplog.at_level(logging.INFO, logger="pipeline.video.reader"):
        frames = list(reader.sample(str(media_files.CARPHONE), fps=2.0, hardware=True))
    assert [frame.index for frame in frames] == expected
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("Hardware decoding failed, continuing in software: ")


@pytest.mark.skipif("cuda" not in hwdevices_available(), reason="this FFmpeg knows no CUDA")
def test_sample__codec_unknown_to_device(tmp_path: Path) -> None:
    path = media_files.coded(tmp_path / "a.mkv", media_files.patterns(6), codec="ffv1")
    accelerator = HWAccel("cuda", allow_software_fallback=True)
    frames = list(reader._sampled(str(path), fps=25.0, hwaccel=accelerator))
    assert len(frames) == 6


def test_sample__device_lost_midway(tmp_path: Path) -> None:
    """Half a file plays the device's pass, the whole file software's."""
    whole = media_files.coded(tmp_path / "whole.mkv", media_files.patterns(60), codec="mpeg4")
    half = tmp_path / "half.mkv"
    half.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    real, passes = reader._sampled, []

    def sampled(
        path: str, *, fps: float, hwaccel: HWAccel | None = None, outcome: object = None
    ) -> Iterator[reader.Frame]:
        passes.append(hwaccel)
        return real(str(half if hwaccel else path), fps=fps)

    accelerator = HWAccel("cuda")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reader, "_sampled", sampled)
        frames = list(reader._with_fallback(str(whole), fps=10.0, accelerator=accelerator))
    assert passes == [accelerator, None]
    expected = [frame.index for frame in real(str(whole), fps=10.0)]
    assert [frame.index for frame in frames] == expected


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuvj420p"])
def test_frame__nv12_equals_planar(pix_fmt: str) -> None:
    image = cv2.imread(str(media_files.SIX_PEOPLE))[:-1, :, ::-1]
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
    planar = frame.reformat(format=pix_fmt)
    device = planar.reformat(format="nv12", src_color_range=None, dst_color_range=None)
    ours, theirs = (reader.Frame(0, 0.0, one) for one in (planar, device))
    assert theirs.size == ours.size
    luma = [gray_plane(one) for one in (planar, device)]
    assert luma[0] is not None
    assert luma[1] is not None
    if pix_fmt == "yuv420p":
        assert np.array_equal(*luma)
    assert np.abs(theirs.image.astype(int) - ours.image.astype(int)).mean() < 1.5
    box = np.array([100, 120, 220, 260])
    assert theirs.stored(box)[1:] == ours.stored(box)[1:]
