from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from pipeline.dagster_instance.instance import PID_TAG, configure, open_instance, own_pid_tag
from warehouse.storage import locks
from warehouse.storage.home import Home


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "unused"))
    monkeypatch.setenv("RISORIUS_HOME", str(tmp_path))
    return Home.at(tmp_path)


def started(instance: dg.DagsterInstance, tag: str) -> str:
    run = instance.create_run_for_job(
        _job(), status=dg.DagsterRunStatus.STARTED, tags={PID_TAG: tag}
    )
    return run.run_id


def _job() -> dg.JobDefinition:
    @dg.op
    def nothing() -> None: ...

    @dg.job
    def empty() -> None:
        nothing()

    return empty


def test_instance__in_home_without_telemetry(home: Home) -> None:
    with open_instance(home) as instance:
        assert Path(instance.root_directory) == home.dagster
        assert instance.telemetry_enabled is False
    assert os.environ["DAGSTER_HOME"] == str(home.dagster)


def test_instance__run_of_dead_process(home: Home) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    with open_instance(home) as instance:
        dead, alive = started(instance, f"{gone.pid}@1"), started(instance, own_pid_tag())
    orphan = home.media / f".draft-{locks.host_id()}-{gone.pid}-0"
    orphan.parent.mkdir()
    orphan.touch()
    log = home.dagster / "storage" / dead / "compute_logs" / "step.err"
    log.parent.mkdir(parents=True)
    log.write_bytes(b"first\nthen hf_plantedPlantedPlanted42\nlast \xff")
    with open_instance(home) as instance:
        assert not orphan.exists()
        assert log.read_bytes() == b"first\nthen ***\nlast \xff"
        assert instance.get_run_by_id(dead).status is dg.DagsterRunStatus.FAILURE
        assert instance.get_run_by_id(alive).status is dg.DagsterRunStatus.STARTED


def test_instance__edited_file_kept(home: Home) -> None:
    open_instance(home).dispose()
    config = home.dagster / "dagster.yaml"
    config.write_text(config.read_text() + "# mine\n")
    open_instance(home).dispose()
    assert config.read_text().endswith("# mine\n")


def test_instance__older_home_masks_secrets(home: Home) -> None:
    path = configure(home)
    older = path.read_text().partition("# What is raised")[0] + "# mine"
    path.write_text(older)
    assert configure(home).read_text().startswith(f"{older}\n# What is raised")
    whole = path.read_text()
    assert configure(home).read_text() == whole
