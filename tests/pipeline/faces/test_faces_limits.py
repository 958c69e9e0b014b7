"""A video over its time limit is stopped and reported."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.ingest import register as stage
from tests import media_files
from warehouse.storage import tables
from warehouse.storage.home import Home


@pytest.mark.parametrize(
    ("duration_s", "size", "seconds"),
    [
        pytest.param(None, None, 300, id="nothing known"),
        pytest.param(0.0, 50_000, 300, id="a photo"),
        pytest.param(60.0, 10_000_000, 300 + 20 * 60, id="a minute"),
        pytest.param(36_000.0, 20_000, 300 + 20 * 10, id="a header that lies"),
        pytest.param(None, 20_000, 300 + 20 * 10, id="a recording without a length"),
    ],
)
def test_time_limit__grows_with_size(
    duration_s: float | None, size: int | None, seconds: float
) -> None:
    assert stage.time_limit({"duration_s": duration_s, "bytes": size}) == seconds


def test_time_limit__exceeded(tmp_path: Path) -> None:
    home = Home.at(tmp_path)
    folder = home.inbox / "b"
    folder.mkdir(parents=True)
    media_files.coded(
        folder / "slow.mkv", media_files.patterns(80, height=480, width=640), codec="mpeg4"
    )
    (folder / "photo.jpg").write_bytes(media_files.SIX_PEOPLE.read_bytes())
    stage.register(home, "b", workers=1)

    def limit(row: dict) -> float:
        return 120.0 if row["uri"].endswith("jpg") else 0.2

    options = stage.FaceOptions(sample_fps=10.0)
    assert stage.find_faces(home, "b", options, workers=1, limit_s=limit).done == 2
    rows = tables.read(home, "videos")
    found = {Path(row["uri"]).name: row for row in rows.iter_rows(named=True)}
    assert found["photo.jpg"]["verdict"] == "kept"
    assert found["slow.mkv"]["verdict"] == "failed"
    assert found["slow.mkv"]["reason"].startswith("timeout")
    assert "RISORIUS_VIDEO_LIMIT_S" in found["slow.mkv"]["reason"]
    # The same limit would end it again; without a limit it is tried.
    same = stage.find_faces(home, "b", options, workers=1, limit_s=limit)
    assert same == stage.StageCount(done=0, skipped=1, left=1)
    assert stage.find_faces(home, "b", options, workers=1).done == 1
    verdicts = tables.read(home, "videos")["verdict"].to_list()
    assert sorted(verdicts) == ["dropped", "kept"]


@pytest.mark.parametrize(
    ("videos", "workers", "cores", "threads"),
    [(1, None, 8, 8), (2, None, 8, 4), (100, None, 8, 1), (100, 2, 8, 4), (1, 1, 1, 1),
     (0, None, 4, 4)],
)  # fmt: skip
def test_threads__few_videos(
    monkeypatch: pytest.MonkeyPatch, videos: int, workers: int | None, cores: int, threads: int
) -> None:
    monkeypatch.setattr(stage.os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    assert stage._threads(videos, workers) == threads
