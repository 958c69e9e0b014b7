from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from warehouse.storage import atomic


def test_write__replaces_the_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    atomic.write_text(path, "old")
    atomic.write_bytes(path, "new ä".encode())
    assert path.read_text() == "new ä"
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]


def test_replace_file__failure_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    atomic.write_text(path, "old")

    def fail_half_way() -> None:
        with atomic.replace_file(path) as draft:
            draft.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_delete_stale_drafts__by_age(tmp_path: Path) -> None:
    for name, age in (("a/.draft-old", 1000.0), ("a/.draft-young", 10.0), ("a/kept", 1000.0)):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text("")
        os.utime(file, (5000 - age, 5000 - age))
    assert atomic.delete_stale_drafts(tmp_path, older_than_s=100, now=lambda: 5000.0) == 1
    assert {path.name for path in (tmp_path / "a").iterdir()} == {".draft-young", "kept"}


def test_delete_stale_drafts__by_process(
    tmp_path: Path,
) -> None:
    script = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom warehouse.storage import atomic\n"
        "with atomic.replace_file(Path(sys.argv[1])) as draft:\n"
        "    draft.write_text('half')\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "file")], check=False)
    assert len(list(tmp_path.iterdir())) == 1
    with atomic.replace_file(tmp_path / "other") as draft:
        draft.write_text("whole")
        assert (
            atomic.delete_stale_drafts(
                tmp_path, older_than_s=1000, now=lambda: draft.stat().st_mtime
            )
            == 1
        )
        assert draft.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["other"]
