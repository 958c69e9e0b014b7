"""Dagster instance of a home, on SQLite or Postgres."""

from __future__ import annotations

import importlib.util
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from warehouse.errors import SettingsError
from warehouse.masking import mask
from warehouse.storage import atomic, locks, mirror
from warehouse.storage.home import Home

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

_MASKED = """\
# What is raised, logged or printed is stored without secrets.
instance_class:
  module: pipeline.dagster_instance.redaction
  class: MaskedInstance
"""

POSTGRES = "RISORIUS_DAGSTER_POSTGRES"

_STORAGE = f"""\
storage:
  postgres:
    postgres_url:
      env: {POSTGRES}
"""

_WORKSPACE = """\
load_from:
  - python_module:
      module_name: pipeline.definitions
      location_name: risorius
"""


def workspace(home: Home) -> Path:
    """Write the workspace file that names the code location."""
    path = home.dagster / "workspace.yaml"
    if not path.exists():
        atomic.write_text(path, _WORKSPACE)
    return path


def open_instance(home: Home) -> DagsterInstance:
    """Open the instance in ``<home>/dagster``.

    Sets ``DAGSTER_HOME`` and ``RISORIUS_HOME``. Runs that a killed process left as started are
    marked failed, and its half-written files removed.

    Raises:
        SettingsError: Postgres is configured but not installed, reachable or accessible; or
            ``dagster.yaml`` names it and no address is set.
    """
    from dagster import DagsterInstance

    configure(home)
    os.environ["DAGSTER_HOME"] = str(home.dagster)
    os.environ["RISORIUS_HOME"] = mirror.url_of(home.root) or str(home.root)
    try:
        instance = DagsterInstance.get()
    except Exception as error:
        if not os.environ.get(POSTGRES):
            raise
        raise SettingsError(
            f"Cannot connect to Postgres of {POSTGRES}",
            got=mask(str(error).strip().splitlines()[0]),
            hint="start it, fix the address, or unset it to keep runs in SQLite",
        ) from None
    if _fail_dead_runs(instance, home.dagster / "storage"):
        # Only then: looking through every crop of a large home takes seconds.
        atomic.delete_stale_drafts(home.root, older_than_s=_DAY_S, now=time.time)
    return instance


def configure(home: Home) -> Path:
    """Write or complete ``dagster.yaml``; return its path.

    An older file gains the instance class that masks secrets, and with Postgres its storage. The
    address of Postgres holds a password and stays in the environment.
    """
    from pipeline import settings

    wanted = settings.load().dagster_postgres
    path = home.dagster / "dagster.yaml"
    text = path.read_text() if path.exists() else _CONFIG
    text = text.replace(
        "module: pipeline.recording\n", "module: pipeline.dagster_instance.redaction\n"
    )
    if "\ninstance_class:" not in f"\n{text}":
        text = f"{text.rstrip()}\n{_MASKED}"
    if wanted is not None:
        _need_driver()
        # Dagster and its child processes read it there. Dagster's driver is psycopg2, which
        # SQLAlchemy uses only if the scheme names it.
        scheme, _, rest = wanted.get_secret_value().partition("://")
        plain = scheme in ("postgres", "postgresql")
        os.environ[POSTGRES] = f"{'postgresql+psycopg2' if plain else scheme}://{rest}"
        if "\nstorage:" not in text:
            text += _STORAGE
    elif POSTGRES in text:
        raise SettingsError(
            f"{path} names Postgres, but its address is not set",
            got=f"no {POSTGRES}",
            hint="set it, or remove the block `storage:` from that file to go back to SQLite",
        )
    if not path.exists() or path.read_text() != text:
        atomic.write_text(path, text)
    return path


def _need_driver() -> None:
    if importlib.util.find_spec("dagster_postgres") is None:
        raise SettingsError(
            f"{POSTGRES} needs the package dagster-postgres",
            got="no such package",
            hint="install risorius[cluster], or unset it to keep runs in SQLite",
        )


def _fail_dead_runs(instance: DagsterInstance, storage: Path) -> int:
    """Mark runs of processes that are gone as failed; return how many."""
    from dagster import DagsterRunStatus, RunsFilter

    from pipeline.dagster_instance.redaction import mask_run

    failed = 0
    running = RunsFilter(statuses=[DagsterRunStatus.STARTED])
    for run in instance.get_runs(running):
        tag = run.tags.get(PID_TAG)
        if tag and not _alive(tag):
            instance.report_run_failed(run, "the process that ran this is gone; run it again")
            mask_run(storage, run.run_id)
            failed += 1
    return failed


def own_pid_tag() -> str:
    """Return ``<pid>@<start time>@<host>``, because pids are reused."""
    return f"{os.getpid()}@{psutil.Process().create_time():.0f}@{locks.host_id()}"


def _alive(tag: str) -> bool:
    pid, born, host = (*tag.split("@"), "", "")[:3]
    if host and host != locks.host_id():
        return True  # of another machine of this database, which fails its own
    try:
        return f"{psutil.Process(int(pid)).create_time():.0f}" == born
    except (psutil.Error, ValueError):
        return False
