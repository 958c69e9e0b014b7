"""Every source of a batch has a row."""

from __future__ import annotations

from pathlib import Path

from pipeline.ingest import register as stage
from warehouse.storage import tables
from warehouse.storage.home import Home


def test_register__copies_of_broken_file(tmp_path: Path) -> None:
    home = Home.at(tmp_path)
    folder = home.inbox / "b"
    folder.mkdir(parents=True)
    for name, content in {"a.mp4": "junk", "b.mp4": "junk", "c.mp4": "", "d.mp4": ""}.items():
        (folder / name).write_text(content * 50)
    assert stage.register(home, "b", workers=1) == stage.StageCount(done=4, skipped=0)
    rows = tables.read(home, "videos")
    assert sorted(Path(uri).name for uri in rows["uri"]) == ["a.mp4", "b.mp4", "c.mp4", "d.mp4"]
    assert set(rows["verdict"]) == {"failed"}
    assert stage.register(home, "b", workers=1) == stage.StageCount(done=0, skipped=4)
