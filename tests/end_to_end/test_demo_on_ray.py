"""The demo on two Ray nodes equals the demo on local processes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.end_to_end.conftest import DemoHome, risorius
from tests.end_to_end.state import end_state
from tests.pipeline.ray_cluster import ABSENT, cluster


@pytest.mark.studio
@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(ABSENT is not None, reason=ABSENT or "")
def test_ray_and_local_processes_release_the_same(
    demo: DemoHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    try:
        with cluster(1, 1) as nodes:
            monkeypatch.setenv("RISORIUS_ENGINE", "ray")
            monkeypatch.setenv("RAY_ADDRESS", nodes.address)
            risorius("demo", home=home)
        shown = json.loads(risorius("release", "show", "--json", home=home).stdout)
    finally:
        risorius("studio", "down", home=home, check=False)
    here = json.loads(demo.run("release", "show", "--json").stdout)
    assert shown["problems"] == []
    assert shown["checksums"]["default"] == here["checksums"]["default"]
    assert shown["summary"]["synthesis"] == here["summary"]["synthesis"]
    assert end_state(home) == end_state(demo.root)
