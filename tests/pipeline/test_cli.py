"""The command line, called from a shell."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

RISORIUS = [sys.executable, "-c", "from pipeline.cli import main; main()"]


def run(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*RISORIUS, *words], capture_output=True, text=True, cwd=cwd, timeout=120, check=False
    )


def test_help__commands_and_imports() -> None:
    probe = (
        "import sys\n"
        "from pipeline.cli import app\n"
        "try:\n    app(['--help'])\n"
        "except SystemExit:\n    pass\n"
        "heavy = {'torch', 'dagster', 'polars', 'duckdb', 'cv2', 'datasets', 'numpy', 'pydantic'}\n"
        "print('HEAVY', sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert "HEAVY []" in done.stdout
    for name in ("demo", "ingest", "dev", "sql", "doctor", "label", "release", "studio", "audit",
                 "synth", "models", "import", "forget", "backup", "migrate"):  # fmt: skip
        assert f" {name} " in done.stdout


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["ingest", "no/such/folder"], 1, "does not exist"),
        (["ingest"], 2, "Missing argument"),
        (["sql", "select bogus"], 1, "DuckDB rejects the query"),
        (["sql", "select 1", "--bogus"], 2, "No such option"),
        (["nonsense"], 2, "No such command"),
        (["release", "show"], 1, "risorius: "),
    ],
)
def test_cli__error_is_one_line(tmp_path: Path, words: list[str], code: int, said: str) -> None:
    home = ["--home", str(tmp_path / "home")] if len(words) > 1 or words[0] == "ingest" else []
    done = run(*words, *home)
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_settings_command__lists_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.settings import GateSettings, Settings

    monkeypatch.setenv("RISORIUS_GATE__MIN_SIZE_PX", "48")
    monkeypatch.setenv("RISORIUS_ASK_AU", "AU1,AU12")
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "planted-for-this-test")
    done = run("doctor", "--settings", "--json", "--home", str(tmp_path / "home"))
    listed = {row["variable"]: row for row in json.loads(done.stdout)}
    assert len(listed) == len(Settings.model_fields) - 1 + len(GateSettings.model_fields)
    assert all(row["meaning"] for row in listed.values())
    assert listed["RISORIUS_GATE__MIN_SIZE_PX"]["value"] == "48.0"
    assert listed["RISORIUS_ASK_AU"]["value"] == "1,12"
    assert listed["LABEL_STUDIO_API_KEY"]["value"] == "***"
    assert {name for name, row in listed.items() if row["moved"]} == {
        "RISORIUS_HOME", "RISORIUS_GATE__MIN_SIZE_PX", "RISORIUS_ASK_AU", "LABEL_STUDIO_API_KEY",
    }  # fmt: skip


def test_home__is_a_file(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("not a folder")
    done = run("sql", "select 1", "--home", str(tmp_path / "home"))
    assert done.returncode == 1
    assert "The home is not a folder" in done.stderr


def test_sql__text_and_json(tmp_path: Path) -> None:
    query = "select count(*) as n from faces"
    assert "0" in run("sql", query, "--home", str(tmp_path)).stdout
    assert json.loads(run("sql", query, "--json", "--home", str(tmp_path)).stdout) == [{"n": 0}]


def test_settings__invalid_value(tmp_path: Path) -> None:
    (tmp_path / "risorius.toml").write_text("sample_fps = -3\n")
    done = run("sql", "select 1", cwd=tmp_path)
    assert done.returncode == 1
    assert "RISORIUS_SAMPLE_FPS" in done.stderr


def test_debug__traceback(tmp_path: Path) -> None:
    done = run("ingest", "no/such/folder", "--debug", "--home", str(tmp_path))
    assert "Traceback" in done.stderr
