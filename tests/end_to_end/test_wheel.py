"""The wheel installs without overrides and runs outside the checkout.

uv installs it: with ``--no-config`` it resolves the same requirements as pip, in seconds.
"""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UV = (sys.executable, "-m", "uv")
PACKAGES = {"pipeline", "annotation", "synthesis", "warehouse"}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def run(*command: str | Path, cwd: Path, timeout_s: float) -> str:
    """Run a command without this environment's variables; return its output."""
    # Where packages come from is the machine's own setting and stays.
    dropped = ("PYTHON", "PYTEST", "VIRTUAL_ENV", "RISORIUS_", "LABEL_STUDIO_", "DAGSTER_")
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={name: value for name, value in os.environ.items() if not name.startswith(dropped)},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    run(*UV, "build", "--wheel", "-o", folder, ROOT, cwd=ROOT, timeout_s=300)
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def scripts(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``bin`` folder of a new environment with the wheel."""
    folder = tmp_path_factory.mktemp("environment")
    run(*UV, "venv", "--quiet", "--python", sys.executable, "venv", cwd=folder, timeout_s=300)
    scripts = folder / "venv" / "bin"
    into = ("--quiet", "--no-config", "--python", scripts / "python")
    run(*UV, "pip", "install", *into, wheel, cwd=folder, timeout_s=3000)
    return scripts


def test_wheel__holds_the_packages_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    top = {name.split("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == PACKAGES
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(names)


def test_wheel__requirements_are_consistent(scripts: Path, tmp_path: Path) -> None:
    run(*UV, "pip", "check", "--python", scripts / "python", cwd=tmp_path, timeout_s=300)


@pytest.mark.parametrize("arguments", [("--help",), ("doctor",)])
def test_wheel__commands_run_in_an_empty_folder(
    scripts: Path, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    assert run(scripts / "risorius", *arguments, cwd=tmp_path, timeout_s=300)


@pytest.mark.studio
def test_wheel__demo_writes_a_release_in_an_empty_folder(scripts: Path, tmp_path: Path) -> None:
    run(scripts / "risorius", "demo", cwd=tmp_path, timeout_s=900)
    run(scripts / "risorius", "studio", "down", cwd=tmp_path, timeout_s=120)
    assert (tmp_path / ".risorius/releases/faces/v1/manifest.json").is_file()
