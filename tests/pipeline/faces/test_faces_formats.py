"""Remarks and measured lengths reach the table; bad names end no batch."""

from __future__ import annotations

import io
import os
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from pipeline.ingest import batches
from pipeline.ingest import register as stage
from tests import media_files
from tests.pipeline.video import hdr_videos, heif_files
from warehouse.storage import tables
from warehouse.storage.home import Home


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    image = cv2.imread(str(media_files.SIX_PEOPLE))[:, :, ::-1]
    return cv2.resize(image, (640, 444), interpolation=cv2.INTER_AREA)


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory, photo: np.ndarray) -> tuple[Home, str]:
    folder = tmp_path_factory.mktemp("clips")
    heif_files.grid(folder / "tiles.heic", photo[:442], tile=512)
    hdr_videos.video(folder / "phone.mp4", photo, transfer=hdr_videos.HLG)
    live = io.BytesIO()
    live.seek = None  # type: ignore[method-assign, assignment]
    with av.open(live, "w", format="webm", options={"live": "1"}) as container:
        stream = container.add_stream("libvpx", rate=5)
        stream.height, stream.width, stream.pix_fmt = *photo.shape[:2], "yuv420p"
        stream.options = {"deadline": "realtime", "cpu-used": "8"}
        for _ in range(4):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(photo, format="rgb24")))
        container.mux(stream.encode(None))
    (folder / "live.webm").write_bytes(live.getvalue())
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.mp4")).write_bytes(b"x")
    (folder / "link").symlink_to(folder.parent)
    home = Home.at(tmp_path_factory.mktemp("home"))
    batch = batches.create(home, [str(folder)], batch="b")
    stage.register(home, batch, workers=1)
    stage.find_faces(home, batch, stage.FaceOptions(sample_fps=2.0), workers=1)
    return home, str(folder)


def rows(home: Home) -> dict[str, dict]:
    return {Path(row["uri"]).name: row for row in tables.read(home, "videos").to_dicts()}


def test_ingest__verdicts(ingested: tuple[Home, str]) -> None:
    found = {name: (row["verdict"], row["reason"]) for name, row in rows(ingested[0]).items()}
    assert found == {
        "tiles.heic": ("kept", None),
        "live.webm": ("kept", None),
        "phone.mp4": (
            "kept",
            "tone_mapped: it is HDR (HLG), its frames were converted to SDR",
        ),
        "caf\\xe9.mp4": (
            "failed",
            "unreadable_name: caf\\xe9.mp4 is not UTF-8 text; rename the file or its folder",
        ),
        "link": (
            "failed",
            "linked_folder: a link to another folder, which is not followed; name that folder "
            "itself, or copy it here",
        ),
    }


def test_ingest__sizes_and_lengths(ingested: tuple[Home, str]) -> None:
    found = rows(ingested[0])
    assert (found["tiles.heic"]["width"], found["tiles.heic"]["height"]) == (640, 442)
    assert found["live.webm"]["duration_s"] == pytest.approx(0.8, abs=0.01)
    faces = tables.read(ingested[0], "faces")
    in_tiles = faces.filter(faces["video_id"] == found["tiles.heic"]["video_id"])
    assert (in_tiles["verdict"] == "kept").sum() == 6


def test_summary__names_remarks(ingested: tuple[Home, str]) -> None:
    problems = {name: verdict for name, verdict, _ in batches.summary(ingested[0], "b").problems}
    assert problems == {"phone.mp4": "kept", "caf\\xe9.mp4": "failed", "link": "failed"}


def test_register__renamed_file(ingested: tuple[Home, str]) -> None:
    home, folder = ingested
    bad = Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.mp4"))
    bad.rename(Path(folder) / "cafe.mp4")
    (Path(folder) / "link").unlink()
    batches.create(home, [folder], batch="b")
    stage.register(home, "b", workers=1)
    assert sorted(rows(home)) == ["cafe.mp4", "live.webm", "phone.mp4", "tiles.heic"]
