"""HDR frames look like their SDR version; SDR frames are not converted."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.video import tone_mapping
from pipeline.video.reader import Outcome, probe, sample
from tests import media_files
from tests.pipeline.video import hdr_videos
from tests.pipeline.video.hdr_videos import HLG, PQ


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    image = cv2.imread(str(media_files.SIX_PEOPLE))[:, :, ::-1]
    return cv2.resize(image, (160, 112), interpolation=cv2.INTER_AREA)


@pytest.fixture(scope="module")
def sdr(tmp_path_factory: pytest.TempPathFactory, photo: np.ndarray) -> np.ndarray:
    """The same video without HDR, coded the same way."""
    path = hdr_videos.video(tmp_path_factory.mktemp("sdr") / "a.mp4", photo, transfer=None)
    return next(sample(str(path))).image


@pytest.mark.parametrize(("transfer", "name"), [(PQ, "PQ"), (HLG, "HLG")])
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_sample__hdr_video(
    tmp_path: Path, photo: np.ndarray, sdr: np.ndarray, transfer: int, name: str, suffix: str
) -> None:
    path = str(hdr_videos.video(tmp_path / f"a.{suffix}", photo, transfer=transfer))
    outcome = Outcome()
    frames = list(sample(path, outcome=outcome))
    image = frames[0].image
    assert np.abs(image.astype(int) - sdr).mean() < 3
    assert image.std() == pytest.approx(sdr.std(), rel=0.03)
    small = cv2.resize(image, (80, 56), interpolation=cv2.INTER_AREA)
    assert np.abs(frames[0].small(80).astype(int) - small).mean() < 4
    said = f"tone_mapped: it is HDR ({name}), its frames were converted to SDR"
    assert (probe(path).note, outcome.note) == (said, said)


def test_sample__ten_bit_sdr(tmp_path: Path, photo: np.ndarray) -> None:
    path = str(hdr_videos.video(tmp_path / "a.mp4", photo, transfer=None))
    frame = next(sample(path))
    assert np.array_equal(frame.image, frame.source.to_ndarray(format="rgb24", threads=1))
    assert probe(path).note is None


@pytest.mark.parametrize(
    ("transfer", "code", "expected"),
    [
        # BT.2408: diffuse white, 203 cd/m², is 58 % of PQ and 75 % of HLG; an 18 % gray card,
        # 26 cd/m², is 38 % of both.
        (PQ, 0.0, 0), (PQ, 0.5807, 247), (PQ, 0.38, 108), (PQ, 0.7518, 255), (PQ, 1.0, 255),
        (HLG, 0.0, 0), (HLG, 0.75, 247), (HLG, 0.38, 108), (HLG, 1.0, 255),
    ],
)  # fmt: skip
def test_to_sdr__gray_levels(transfer: int, code: float, expected: int) -> None:
    gray = np.full((2, 2, 3), round(65535 * code), np.uint16)
    found = tone_mapping.to_sdr(gray, transfer=transfer)
    assert np.abs(found.astype(int) - expected).max() <= 3
