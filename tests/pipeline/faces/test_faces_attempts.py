"""Retries of videos that ended their worker."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from pipeline.ingest import register
from pipeline.ingest import register as stage
from tests import media_files
from warehouse.errors import MediaError, RisoriusError
from warehouse.storage import tables
from warehouse.storage.home import Home

LATE = RisoriusError("an item", got="timeout: its worker was ended", hint="allow it more time")
DEAD = RisoriusError("a worker", got="one that was ended by SIGKILL", hint="watch memory")


def footer(*outcomes: Exception, fingerprint: str = "f", limit_s: float | None = 10.0) -> dict:
    """Footer of a video's file after these outcomes, one run each."""
    found: dict[str, str] = {}
    for error in outcomes:
        attempt = register.record_attempt(
            error, footer=found, fingerprint=fingerprint, limit_s=limit_s
        )
        found = {register.TRIED: attempt} if attempt else {}
    return found


@pytest.mark.parametrize(
    ("outcomes", "fingerprint", "limit_s", "spared"),
    [
        pytest.param([], "f", 10.0, False, id="never tried"),
        pytest.param([LATE], "f", 10.0, True, id="the same again"),
        pytest.param([LATE], "f", 5.0, True, id="less time"),
        pytest.param([LATE], "f", 11.0, False, id="more time"),
        pytest.param([LATE], "f", None, False, id="all the time"),
        pytest.param([LATE], "g", 10.0, False, id="other options"),
        pytest.param([DEAD], "f", 10.0, False, id="a crash may be its neighbours'"),
        pytest.param([DEAD, DEAD], "f", 10.0, True, id="twice is proof"),
        pytest.param([DEAD, DEAD], "f", 99.0, True, id="time does not help a crash"),
        pytest.param([DEAD, DEAD], "g", 10.0, False, id="crashes under other options"),
        pytest.param([DEAD, LATE, DEAD], "f", 10.0, True, id="crashes are counted across"),
        pytest.param([OSError(28, "No space left")] * 5, "f", 10.0, False, id="not its fault"),
        pytest.param([MediaError("a", got="b", hint="c")] * 5, "f", 10.0, False, id="only raised"),
    ],
)
def test_is_hopeless__outcomes(
    outcomes: list[Exception], fingerprint: str, limit_s: float | None, spared: bool
) -> None:
    found = footer(*outcomes)
    assert register.is_hopeless(found, fingerprint=fingerprint, limit_s=limit_s) == spared


def test_failure_reason__hint() -> None:
    late = register.failure_reason(LATE, tried=footer(LATE)[register.TRIED])
    assert late.startswith("timeout: its worker was ended; allow it more time; ")
    assert "RISORIUS_VIDEO_LIMIT_S" in late
    assert "RISORIUS_RETRY_FAILED=true" in late
    once, twice = (
        register.failure_reason(DEAD, tried=footer(*[DEAD] * n)[register.TRIED]) for n in (1, 2)
    )
    assert once.startswith("crashed: ")
    assert once.endswith("the next run tries it once more")
    assert twice.endswith("with RISORIUS_RETRY_FAILED=true")
    assert register.failure_reason(OSError(28, "No space left"), tried=None).startswith("crashed: ")


def home_with_photo(tmp_path: Path) -> Home:
    home = Home.at(tmp_path)
    (home.inbox / "b").mkdir(parents=True)
    (home.inbox / "b" / "photo.jpg").write_bytes(media_files.SIX_PEOPLE.read_bytes())
    stage.register(home, "b", workers=1)
    return home


def verdict_of(home: Home) -> tuple[str, str | None]:
    row = tables.read(home, "videos").row(0, named=True)
    return row["verdict"], row["reason"]


def dies(row: dict[str, Any], **_: Any) -> str:
    os.kill(os.getpid(), signal.SIGKILL)
    return row["uri"]


def test_find_faces__worker_killed_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, options = home_with_photo(tmp_path), stage.FaceOptions(sample_fps=1.0)
    with monkeypatch.context() as broken:
        # The worker finds it by name: a decoder that kills the process.
        broken.setattr(stage, "_extract_one", dies)
        for _ in range(2):
            count = stage.find_faces(home, "b", options, workers=1, limit_s=60.0)
            assert count == stage.StageCount(done=1, skipped=0)
            assert verdict_of(home)[0] == "failed"
    assert "SIGKILL" in (verdict_of(home)[1] or "")
    # It would work now, but the register does not know that.
    again = stage.find_faces(home, "b", options, workers=1, limit_s=60.0)
    assert again == stage.StageCount(done=0, skipped=0, left=1)
    asked = stage.find_faces(home, "b", options, workers=1, limit_s=60.0, retry=True)
    assert asked.done == 1
    assert verdict_of(home) == ("kept", None)
    assert stage.find_faces(home, "b", options, workers=1).skipped == 1


def test_fingerprint__quality_version(monkeypatch: pytest.MonkeyPatch) -> None:
    before = stage.FaceOptions().fingerprint
    monkeypatch.setattr(stage.quality, "VERSION", stage.quality.VERSION + 1)
    assert stage.FaceOptions().fingerprint != before
