from __future__ import annotations

from pathlib import Path

import pytest

from pipeline import settings
from warehouse.errors import SettingsError


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("RISORIUS_HOME", "RISORIUS_SAMPLE_FPS", "RISORIUS_RELEASE"):
        monkeypatch.delenv(name, raising=False)


def test_load__precedence(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("risorius.toml").write_text('sample_fps = 2.0\nrelease = "from-file"\nwanted_votes = 7\n')
    monkeypatch.setenv("RISORIUS_SAMPLE_FPS", "3")
    monkeypatch.setenv("RISORIUS_RELEASE", "from-variable")
    found = settings.load(release="from-argument")
    assert (found.release, found.sample_fps, found.wanted_votes) == ("from-argument", 3.0, 7)


def test_load__argument_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RISORIUS_HOME", "elsewhere")
    assert settings.load(home=None).home == Path("elsewhere")


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"sample_fps": 0}, "sample_fps"),
        ({"wanted_votes": 0}, "wanted_votes"),
        ({"engine": "slurm"}, "engine"),
        ({"gate": {"min_size": 3}}, "gate.min_size"),
        ({"release": "a/b"}, "a/b"),
        ({"bogus": 1}, "bogus"),
    ],
)
def test_load__invalid_value(given: dict[str, object], named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        settings.load(**given)


def test_load__broken_file() -> None:
    Path("risorius.toml").write_text("sample_fps = = 2\n")
    with pytest.raises(SettingsError, match=r"risorius\.toml"):
        settings.load()


def test_settings__secret_hidden() -> None:
    found = settings.load(LABEL_STUDIO_API_KEY="hunter2-hunter2")
    assert "hunter2" not in f"{found!r} {found.model_dump()} {found.model_dump_json()}"
