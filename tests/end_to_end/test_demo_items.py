"""``risorius demo --items``: from a clip to a config of segments."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.end_to_end.conftest import DemoHome, risorius

pytestmark = [pytest.mark.studio, pytest.mark.slow, pytest.mark.timeout(900)]


def test_segments__reach_a_release_that_datasets_loads(tmp_path: Path) -> None:
    import datasets

    root = tmp_path / "home"
    try:
        demo = DemoHome(root, risorius("demo", "--items", home=root).stdout)
        assert "segments       3 with 9 votes, 18 texts and 9 spans" in demo.output
        kinds = demo.sql("select distinct rater_kind from item_votes")
        assert kinds == [{"rater_kind": "simulated"}]
    finally:
        risorius("studio", "down", home=root, check=False)
    folder, cache = str(root / "releases" / "faces" / "v1"), str(tmp_path / "cache")
    found = {
        config: [row for part in datasets.load_dataset(folder, config, cache_dir=cache).values()
                 for row in part]
        for config in ("segments", "segment_votes", "texts", "spans")
    }  # fmt: skip
    assert [len(rows) for rows in found.values()] == [3, 9, 18, 9]
    for row in found["segments"]:
        assert (row["label_set"], row["n_votes"]) == ("mafw11", 3)
        assert row["video"]["bytes"][4:8] == b"ftyp"
        assert row["audio"]["bytes"][:4] == b"fLaC"
    assert {row["label_set"] for row in found["spans"]} == {"ambivalence"}
    assert {row["author_kind"] for row in found["texts"]} == {"machine"}
