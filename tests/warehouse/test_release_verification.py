"""Versions changed by another hand: every reader refuses them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from warehouse import releases
from warehouse.errors import ReleaseError
from warehouse.releases import verification
from warehouse.releases.lineage import lineage
from warehouse.storage.home import Home

Inputs = Callable[..., dict[str, Any]]


@pytest.fixture
def home(home: Home, inputs: Inputs) -> Home:
    releases.build(home, **inputs(home, {"ann": 6}))
    releases.build(home, **inputs(home, {"ann": 6, "bob": 3}))
    return home


def shard(home: Home) -> Path:
    return next((home.releases / "faces" / "v2" / "data").glob("train-*.parquet"))


def relabel(home: Home) -> None:
    frame = pl.read_parquet(shard(home))
    frame.with_columns(expression=pl.lit(0, dtype=frame.schema["expression"])).write_parquet(
        shard(home)
    )


def flip_one_bit(home: Home) -> None:
    """Keep size and modification time."""
    data, stat = bytearray(shard(home).read_bytes()), shard(home).stat()
    data[len(data) // 2] ^= 1
    shard(home).write_bytes(data)
    os.utime(shard(home), ns=(stat.st_atime_ns, stat.st_mtime_ns))


def truncate(home: Home) -> None:
    shard(home).write_bytes(shard(home).read_bytes()[:-100])


def remove(home: Home) -> None:
    shard(home).unlink()


def add(home: Home) -> None:
    shutil.copy(shard(home), shard(home).with_name("train-00009-of-00010.parquet"))


def swap_for_older(home: Home) -> None:
    path = home.releases / "faces"
    shutil.rmtree(path / "v2")
    shutil.copytree(path / "v1", path / "v2")


def rewrite_manifest(home: Home) -> None:
    """Change a file and the manifest that lists it."""
    path = home.releases / "faces" / "v2" / "manifest.json"
    before = verification.checksum(shard(home))
    relabel(home)
    text = path.read_text().replace(before, verification.checksum(shard(home)))
    sizes = releases.show(home, name="faces")["files"][f"data/{shard(home).name}"]["bytes"]
    path.write_text(text.replace(str(sizes), str(shard(home).stat().st_size)))


READERS: dict[str, Callable[[Home, Path], Any]] = {
    "torch_dataset": lambda home, to: releases.torch_dataset("faces", home=home),
    "torch_dataset of a folder": lambda home, to: releases.torch_dataset(
        home.releases / "faces" / "v2"
    ),
    "load": lambda home, to: releases.load("faces", home=home),
    "export": lambda home, to: releases.export(home, name="faces", to=to),
    "diff": lambda home, to: releases.diff(home, name="faces", old="v1"),
    "lineage": lambda home, to: lineage(home, name="faces", face="ann-0000-0"),
    "publish": lambda home, to: releases.publish(home, name="faces", repo="a/b", dry_run=True),
}


@pytest.mark.parametrize(
    "attack", [relabel, flip_one_bit, truncate, remove, add, swap_for_older, rewrite_manifest]
)
def test_readers__changed_version(
    home: Home, attack: Callable[[Home], None], tmp_path: Path
) -> None:
    for read in READERS.values():  # what was read before counts no longer
        if read is not READERS["publish"]:
            read(home, tmp_path / "before")
            shutil.rmtree(tmp_path / "before", ignore_errors=True)
    attack(home)
    for name, read in READERS.items():
        with pytest.raises(ReleaseError, match=r"changed after it was built|is not intact"):
            read(home, tmp_path / "after")
        assert not (tmp_path / "after").exists(), name
    assert releases.show(home, name="faces")["problems"]
    # The earlier version is sound.
    assert releases.show(home, name="faces", version="v1")["problems"] == []


def test_checksum__once_while_a_file_stays(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[str] = []
    real = verification.file_sha256

    def counted(path: str) -> str:
        hashed.append(path)
        return real(path)

    monkeypatch.setattr(verification, "file_sha256", counted)
    monkeypatch.setattr(verification, "_known", {})
    for _ in range(3):
        releases.torch_dataset("faces", home=home)
    assert hashed.count(str(shard(home))) == 1
    assert not [path for path in hashed if "/validation-" in path]
    os.utime(shard(home), (0, 0))
    releases.torch_dataset("faces", home=home)
    assert hashed.count(str(shard(home))) == 2


def test_loader__file_changed_between_epochs(home: Home) -> None:
    faces = releases.torch_dataset("faces", home=home, batch_size=4)
    assert len(list(faces)) == 2
    os.utime(shard(home), (0, 0))  # the same bytes
    assert len(list(faces)) == 2
    relabel(home)
    with pytest.raises(ReleaseError, match="changed while it was read"):
        list(faces)


def test_verification__skipped_with_a_reason(home: Home) -> None:
    flip_one_bit(home)
    with pytest.warns(UserWarning, match=r"faces v2 are not compared: a snapshot"):
        faces = releases.torch_dataset("faces", home=home, skip_verification="a snapshot")
    assert len(list(faces.files)) == 1
    with pytest.warns(UserWarning, match="not compared"):
        releases.load("faces", home=home, config="votes", skip_verification="a snapshot")
    with pytest.raises(ReleaseError, match="without a reason"):
        releases.torch_dataset("faces", home=home, skip_verification=" ")
    truncate(home)
    with (
        pytest.warns(UserWarning, match="not compared"),
        pytest.raises(ReleaseError, match="bytes instead of"),
    ):
        releases.torch_dataset("faces", home=home, skip_verification="a snapshot")


def test_readers__files_that_none_opens(home: Home, tmp_path: Path) -> None:
    for name in (".DS_Store", "data/.DS_Store", "data/notes.txt", "Thumbs.db"):
        (home.releases / "faces" / "v2" / name).write_text("x")
    for name, read in READERS.items():
        if name != "publish":
            read(home, tmp_path / name)


def test_create__changed_version(home: Home, inputs: Inputs) -> None:
    relabel(home)
    with pytest.raises(ReleaseError, match="changed after it was built"):
        releases.build(home, **inputs(home, {"ann": 6, "bob": 3, "cid": 2}))
