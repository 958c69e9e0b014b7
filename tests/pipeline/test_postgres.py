"""Dagster's runs, and Label Studio's votes, in a real Postgres."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest

from annotation.label_studio import client, installation
from annotation.label_studio import server as studio
from pipeline.dagster_instance import instance
from tests import postgres_server
from warehouse.errors import SettingsError, StudioError
from warehouse.storage.home import Home

ABSENT = postgres_server.ABSENT or (
    None if find_spec("dagster_postgres") else "dagster-postgres is not installed (extra cluster)"
)
needs_postgres = pytest.mark.skipif(ABSENT is not None, reason=ABSENT or "")


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    with postgres_server.server() as url:
        yield url


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "unused"))
    monkeypatch.setenv("RISORIUS_HOME", str(tmp_path))
    return Home.at(tmp_path)


@needs_postgres
@pytest.mark.slow
def test_postgres__shared_by_two_machines(
    postgres: str, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgres_server.create(postgres, "runs")
    monkeypatch.setenv(instance.POSTGRES, url)
    with instance.open_instance(home) as here:
        here.add_dynamic_partitions("batches", ["monday"])
    assert postgres_server.PASSWORD not in (home.dagster / "dagster.yaml").read_text()
    assert not list(home.dagster.rglob("*.db"))
    other = Home.at(tmp_path / "other-machine")
    with instance.open_instance(other) as there:
        assert there.get_dynamic_partitions("batches") == ["monday"]
    # And what is run here is recorded there.
    script = "from pipeline import runs; from warehouse.storage.home import Home; import sys\n"
    script += "runs.materialize(Home.at(sys.argv[1]), 'import_labels')"
    subprocess.run(
        [sys.executable, "-c", script, str(home.root)],
        env={**os.environ, instance.POSTGRES: url},
        check=True,
        timeout=200,
    )
    with instance.open_instance(other) as there:
        assert [run.job_name for run in there.get_runs()] == ["import_labels"]
        assert there.get_runs()[0].is_success
    # Without the URL the error names it; there is no fallback to another database.
    monkeypatch.delenv(instance.POSTGRES)
    with pytest.raises(SettingsError, match=f"no {instance.POSTGRES}"):
        instance.open_instance(home)


@needs_postgres
@pytest.mark.slow
def test_postgres__refusal_hides_password(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(instance.POSTGRES, "postgresql://me:hidden-word@127.0.0.1:9/none")
    with pytest.raises(SettingsError, match="Cannot connect to Postgres") as refused:
        instance.open_instance(home)
    assert "hidden-word" not in str(refused.value)


def test_postgres__edited_storage_block(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    path = instance.configure(home)
    own = path.read_text() + "storage:\n  sqlite:\n    base_dir: elsewhere\n"
    path.write_text(own)
    monkeypatch.setenv(instance.POSTGRES, "postgresql://me:hidden-word@127.0.0.1:9/none")
    if find_spec("dagster_postgres"):
        assert instance.configure(home).read_text() == own


@pytest.mark.parametrize(
    "url",
    [
        "mysql://u:hidden-word@h/db",
        "postgresql://u:hidden-word@h",
        "postgresql://u:hidden-word@h:no/db",
    ],
)
def test_postgres__invalid_url_hides_password(url: str) -> None:
    with pytest.raises(StudioError, match="host:5432") as refused:
        installation.postgres_variables(url)
    assert "hidden-word" not in str(refused.value)


def test_postgres__label_studio_variables() -> None:
    found = installation.postgres_variables("postgresql://me:p%40ss@db.example:6543/votes")
    assert found == {
        "DJANGO_DB": "default",
        "POSTGRE_NAME": "votes",
        "POSTGRE_USER": "me",
        "POSTGRE_PASSWORD": "p@ss",
        "POSTGRE_HOST": "db.example",
        "POSTGRE_PORT": "6543",
    }


@needs_postgres
@pytest.mark.slow
@pytest.mark.studio
@pytest.mark.timeout(900)
def test_postgres__label_studio_votes(postgres: str, tmp_path: Path) -> None:
    url = postgres_server.create(postgres, "votes")
    folder = tmp_path / "studio"
    found = studio.up(folder, tmp_path / "media", postgres=url, wait_s=800)
    try:
        health = httpx.get(f"{found.url}/health", trust_env=False)
        assert health.status_code == 200
        account = postgres_server.ask(url, "SELECT email FROM htx_user")
        assert account == [(client.EMAIL,)]
        assert not list((folder / "data").glob("*.sqlite3"))
        assert postgres_server.PASSWORD not in (folder / "server.log").read_text()
    finally:
        studio.down(folder)
