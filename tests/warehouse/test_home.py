from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from warehouse.errors import SettingsError
from warehouse.storage.home import Home


def test_at__creates_no_folder(tmp_path: Path) -> None:
    home = Home.at(tmp_path / "new")
    assert home.tables.parent == home.media.parent == home.releases.parent == tmp_path / "new"
    assert not home.root.exists()
    assert Home.at(home) is home


def test_at__default_from_the_environment(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("RISORIUS_HOME", str(tmp_path / "named"))
    assert Home.at().root == tmp_path / "named"
    monkeypatch.delenv("RISORIUS_HOME")
    monkeypatch.chdir(tmp_path)
    assert Home.at().root == tmp_path / ".risorius"


def test_at__refuses_files_unknown_schemes_and_credentials(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("RISORIUS_WORK", str(tmp_path / "work"))
    (tmp_path / "file").write_text("")
    for wrong in (tmp_path / "file", "carrier-pigeon://bucket/home"):
        with pytest.raises(SettingsError, match="--home"):
            Home.at(wrong)
    with pytest.raises(SettingsError, match="AWS_ACCESS_KEY_ID") as refused:
        Home.at("s3://key:planted-secret@bucket/home")
    assert "planted-secret" not in str(refused.value)
    assert not (tmp_path / "work").exists() or not any((tmp_path / "work").rglob("url"))


def test_salt__created_once_by_many_threads(home: Home) -> None:
    with ThreadPoolExecutor(16) as pool:
        salts = set(pool.map(lambda _: home.salt(), range(64)))
    assert len(salts) == 1
    assert len(salts.pop()) == 32
    assert [path.name for path in home.root.iterdir()] == ["salt"]
    assert stat.S_IMODE((home.root / "salt").stat().st_mode) == 0o600
