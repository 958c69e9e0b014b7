"""The Dagster instance of a home: SQLite, no telemetry, one folder."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from warehouse import atomic
from warehouse.home import Home

if TYPE_CHECKING:
    from dagster import DagsterInstance

PID_TAG = "risorius/pid"
_DAY_S = 86_400.0

_CONFIG = """\
# Written once by Risorius and yours to change; https://docs.dagster.io/deployment/dagster-yaml
telemetry:
  enabled: false
nux:
  enabled: false
python_logs:
  python_log_level: INFO
concurrency:
  runs:
    max_concurrent_runs: 2
  pools:
    default_limit: 1
retention:
  sensor:
    purge_after_days: {skipped: 2, success: 30, failure: 30}
"""

_WORKSPACE = """\
load_from:
  - python_module:
      module_name: pipeline.definitions
      location_name: risorius
"""


def workspace(home: Home) -> Path:
    """A workspace file that names the code location, wherever Dagster is started from."""
    path = home.dagster / "workspace.yaml"
    if not path.exists():
        atomic.write_text(path, _WORKSPACE)
    return path


def open_instance(home: Home) -> DagsterInstance:
    """The instance under ``<home>/dagster``; sets ``DAGSTER_HOME`` and ``RISORIUS_HOME``.

    Runs that a killed process left behind as started are marked failed, so that the UI does
    not show them running for ever, and the half-written files it left are removed.
    """
    from dagster import DagsterInstance

    config = home.dagster / "dagster.yaml"
    if not config.exists():
        atomic.write_text(config, _CONFIG)
    os.environ["DAGSTER_HOME"] = str(home.dagster)
    os.environ["RISORIUS_HOME"] = str(home.root)
    instance = DagsterInstance.get()
    if _bury_dead_runs(instance):
        # Only then: looking through every crop of a large home takes seconds.
        atomic.sweep(home.root, older_than_s=_DAY_S, now=time.time)
    return instance


def _bury_dead_runs(instance: DagsterInstance) -> int:
    """Mark runs of processes that are gone as failed; return how many."""
    from dagster import DagsterRunStatus, RunsFilter

    buried = 0
    running = RunsFilter(statuses=[DagsterRunStatus.STARTED])
    for run in instance.get_runs(running):
        tag = run.tags.get(PID_TAG)
        if tag and not _alive(tag):
            instance.report_run_failed(run, "the process that ran this is gone; run it again")
            buried += 1
    return buried


def own_pid_tag() -> str:
    """``<pid>@<start time>``: a pid alone may belong to another program by now."""
    return f"{os.getpid()}@{psutil.Process().create_time():.0f}"


def _alive(tag: str) -> bool:
    pid, _, born = tag.partition("@")
    try:
        return f"{psutil.Process(int(pid)).create_time():.0f}" == born
    except (psutil.Error, ValueError):
        return False
