"""Somebody leaves: what the warehouse cannot reach is cleared here, then all of it is proved."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from annotation.label_studio import sync
from pipeline.settings import Settings
from warehouse.errors import ReleaseError
from warehouse.privacy import erase
from warehouse.privacy.data_subject import DataSubject
from warehouse.privacy.erase import Forgotten
from warehouse.storage import tables
from warehouse.storage.home import Home

if TYPE_CHECKING:
    from rich.console import Console

    from annotation.label_studio.client import LabelStudioClient

_LISTED = 10


@dataclass(frozen=True)
class Farewell:
    """What became of somebody's traces, for people and for machines."""

    done: Forgotten
    hubs: dict[str, str]

    @property
    def facts(self) -> dict[str, Any]:
        return asdict(self.done) | {"proved": self.done.absence.proved, "hubs": self.hubs}

    def show(self, console: Console) -> None:
        done, found = self.done, self.done.absence
        console.print(f"[bold]{done.what}[/] is forgotten")
        for what, n in sorted(done.removed.items()):
            console.print(f"  {n:>6}  {what} removed")
        for old, new in sorted(done.releases.items()):
            console.print(f"  {old} is withdrawn; {new or 'nothing'} takes its place")
        console.print(
            f"searched {found.files} files and {found.pictures} pictures of the home: "
            + ("no id, address, hash or picture of theirs" if found.proved else "TRACES ARE LEFT")
        )
        _list(console, "still there", found.traces)
        _list(console, "faces of others that look the same: the same human?", found.alike)
        _list(console, "not ours to delete, but yours to look at", done.left)
        _list(console, "on Hubs", [f"{where}: {told}" for where, told in self.hubs.items()])
        for note, text in sorted(done.notes.items()):
            console.print(f"{note}: {text}")


def forget(settings: Settings, kind: str, name: str, *, why: str) -> Farewell:
    """Erase a subject or a video from Label Studio, the home, its releases and its run history.

    Withdrawn versions then leave the Hubs they were published to. A Hub that is away is told in
    the result, and tried again by ``withdraw``.

    Raises:
        SettingsError: nobody of that name is there.
        StudioError: Label Studio is away or refuses; nothing was touched.
        ReleaseError: a trace is left; names where.
    """
    home = settings.place
    done = erase.forget(
        home,
        kind,
        name,
        why=why,
        before=[partial(_tasks, settings)],
        after=[partial(_studio_files, settings), partial(_history, home)],
    )
    if not done.absence.proved:
        raise ReleaseError(
            "no trace of who left",
            got="; ".join(done.absence.traces[:_LISTED]),
            hint="see to these files by hand; everything else is done and the tombstone is written",
        )
    return Farewell(done, hubs=withdraw(settings))


def withdraw(settings: Settings) -> dict[str, str]:
    """Take withdrawn versions off every Hub they were published to; what was done, by place.

    The line of a Hub that is away begins with ``still there``.
    """
    rows = tables.read(settings.place, "releases")
    if rows.filter(pl.col("withdrawn_at").is_not_null())["published"].list.len().sum() == 0:
        return {}
    from warehouse import releases

    return releases.withdraw_all(settings.place)


def _tasks(settings: Settings, leaver: DataSubject) -> dict[str, int]:
    """Delete their tasks, with every vote on them; blank frames that show them in tasks of others.

    A home whose Label Studio never ran has none.
    """
    own = not settings.label_studio_url
    if own and not (settings.place.studio / "data").is_dir():
        return {}
    removed = 0
    workspace = settings.label_studio
    with workspace.connect() as client:
        present = {project.id for project in sync.all_projects(workspace, client)}
        for number in sorted(present | set(_projects(settings.place))):
            for task in _there(client, number):
                data = task.get("data") or {}
                if data.get("face_id") in leaver.faces:
                    client.sdk.tasks.delete(str(task["id"]))
                    removed += 1
                elif any(str(data.get("context")).endswith(key) for key in leaver.contexts):
                    client.sdk.tasks.update(str(task["id"]), data=data | {"context": ""})
    return {"labelling tasks": removed}


def _there(client: LabelStudioClient, project_id: int) -> list[dict[str, Any]]:
    """The tasks of a project; none of one that was deleted."""
    from annotation.label_studio.client import NotFoundError

    try:
        client.sdk.projects.get(project_id)
    except NotFoundError:
        return []
    return list(client.tasks(project_id, include="id,data", task_only=True, page_size=1000))


def _projects(home: Home) -> list[int]:
    return tables.read(home, "annotations")["project_id"].drop_nulls().unique().to_list()


def _studio_files(settings: Settings, leaver: DataSubject) -> dict[str, Any]:
    """What the local server's files keep of deleted rows: pages of its database, logs, exports."""
    folder = settings.place.studio
    if settings.label_studio_url:
        return {"Label Studio": "rows are deleted; its backups and logs are its keeper's"}
    if not (folder / "data").is_dir():
        return {}
    was_up = settings.label_studio.down()
    for database in (folder / "data").glob("*.sqlite3"):
        _vacuum(database)
    for log in folder.glob("*.log"):
        log.write_text("")
    shutil.rmtree(folder / "data" / "export", ignore_errors=True)
    (folder / "data" / "export").mkdir()
    return {"Label Studio": "stopped; `risorius studio up` starts it"} if was_up else {}


def _history(home: Home, leaver: DataSubject) -> dict[str, int]:
    """Delete the records of past runs: they hold contact sheets and file names.

    Batches stay known, so nothing finished is done again.
    """
    if not (home.dagster / "history").is_dir():
        return {}
    from dagster import DagsterRunStatus, RunsFilter

    from pipeline.dagster_instance.instance import open_instance

    instance = open_instance(home)
    running = RunsFilter(statuses=[DagsterRunStatus.STARTED, DagsterRunStatus.STARTING])
    if instance.get_runs(running):
        raise ReleaseError(
            "no run at work while its records are deleted",
            got="a run that is going on",
            hint="wait for it or stop it in the Dagster UI, and run the same command again",
        )
    runs = instance.get_runs()
    for run in runs:
        instance.delete_run(run.run_id)
    instance.wipe_assets(instance.all_asset_keys())
    for folder in (home.dagster / "storage").glob("*"):
        shutil.rmtree(folder, ignore_errors=True)
    instance.dispose()
    for database in _databases(home.dagster):
        _vacuum(database)
    return {"records of runs": len(runs)}


def _databases(folder: Path) -> Iterator[Path]:
    yield from sorted(folder.rglob("*.db"))


def _vacuum(path: Path) -> None:
    """Rewrite a SQLite file without its deleted rows, and empty its write-ahead log."""
    with closing(sqlite3.connect(path, timeout=30)) as connection:
        try:
            connection.execute("PRAGMA secure_delete = ON")
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.OperationalError as error:
            raise ReleaseError(
                f"{path.name} free to be rewritten",
                got=str(error),
                hint="stop `risorius dev` and run the same command again",
            ) from error
    with contextlib.suppress(OSError):
        path.with_name(path.name + "-journal").unlink()


def _list(console: Console, title: str, lines: list[str]) -> None:
    from rich.markup import escape

    if lines:
        console.print(f"{title}:")
    for line in lines[:_LISTED]:
        console.print(f"  {escape(line)}")
    if len(lines) > _LISTED:
        console.print(f"  … and {len(lines) - _LISTED} more")
