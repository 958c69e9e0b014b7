"""Erase a data subject everywhere: home, Label Studio, run history, Hubs."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from annotation.label_studio import marking, sync
from annotation.label_studio.tasks import item_of
from pipeline import progress
from pipeline.settings import Settings
from warehouse.errors import ReleaseError, SettingsError
from warehouse.ids import batch_from
from warehouse.privacy import erase
from warehouse.privacy.data_subject import DataSubject
from warehouse.privacy.erase import ErasureReport
from warehouse.storage import tables
from warehouse.storage.home import Home

if TYPE_CHECKING:
    from dagster import DagsterInstance
    from rich.console import Console

    from annotation.label_studio.client import LabelStudioClient

_LISTED = 10
_SHOWN = ("clip", "video", "sound", "transcript")
"""Fields of tasks in which everyone of a shared video may be seen, heard or quoted."""


def forget(settings: Settings, kind: str, name: str, *, why: str) -> ErasureReport:
    """Erase a subject or a video from home, Label Studio and run history.

    Withdrawn versions are then deleted from the Hubs they were published to. An unreachable Hub
    is named in the report; ``withdraw`` tries it again.

    Raises:
        SettingsError: the id is unknown.
        StudioError: Label Studio is unreachable or refuses; nothing was changed.
        ReleaseError: a trace remains; names the files.
    """
    home = settings.place
    report = erase.forget(
        home,
        kind,
        name,
        why=why,
        before=[partial(delete_tasks, settings)],
        after=[partial(_purge_label_studio_files, settings), partial(_delete_run_history, home)],
        waiting=progress.waiting,
    )
    if not report.verification.complete:
        raise ReleaseError(
            "The erasure is incomplete: files still contain data of the subject",
            got="; ".join(report.verification.traces[:_LISTED]),
            hint="delete these files or what they hold, then run the same command again; all other "
            "steps are done and the tombstone is written",
        )
    return replace(report, hubs=withdraw(settings))


def show(report: ErasureReport, console: Console) -> None:
    """Print a report."""
    found = report.verification
    console.print(f"[bold]{report.what}[/] is forgotten")
    for what, n in sorted(report.removed.items()):
        console.print(f"  {n:>6}  {what} removed")
    for old, new in sorted(report.releases.items()):
        console.print(f"  {old} is withdrawn; replaced by {new or 'nothing'}")
    console.print(
        f"searched {found.files} files and {found.pictures} images of the home: "
        + ("no id, address, hash or image found" if found.complete else "TRACES REMAIN")
    )
    _print_list(console, "traces", found.traces)
    _print_list(console, "similar faces of other subjects: the same human?", found.alike)
    _print_list(console, "not deleted, out of reach; check it", report.left)
    _print_list(console, "on Hubs", [f"{place}: {what}" for place, what in report.hubs.items()])
    for note, text in sorted(report.notes.items()):
        console.print(f"{note}: {text}")


def withdraw(settings: Settings) -> dict[str, str]:
    """Delete withdrawn versions from all Hubs; return the result per place.

    The result for an unreachable Hub starts with ``still there``.
    """
    rows = tables.read(settings.place, "releases")
    if rows.filter(pl.col("withdrawn_at").is_not_null())["published"].list.len().sum() == 0:
        return {}
    from warehouse import releases

    return releases.withdraw_all(settings.place)


def delete_tasks(settings: Settings, subject: DataSubject) -> dict[str, int]:
    """Delete the subject's tasks and votes; blank its frames in other tasks.

    Does nothing if Label Studio never ran in this home.
    """
    own = not settings.label_studio_url
    if own and not (settings.place.studio / "data").is_dir():
        return {}
    removed = 0
    workspace = settings.label_studio
    with workspace.connect() as client:
        present = {project.id for project in sync.all_projects(workspace, client)}
        for number in sorted(present | set(_projects(settings.place))):
            for task in _existing_tasks(client, number):
                data = task.get("data") or {}
                if _is_about(subject, data):
                    client.sdk.tasks.delete(str(task["id"]))
                    removed += 1
                elif blank := _blanked(subject, data):
                    client.sdk.tasks.update(str(task["id"]), data=data | blank)
                    if "item_kind" in data:
                        _delete_texts(client, task["id"])
    return {"labelling tasks": removed}


def _is_about(subject: DataSubject, data: Mapping[str, Any]) -> bool:
    """Return whether a task asks about a face, clip or segment of the subject."""
    ids = {str(value) for key, value in data.items() if key.endswith("_id")}
    return not ids.isdisjoint({*subject.ids, *subject.shared})


def _blanked(subject: DataSubject, data: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields in which a task about others shows the subject."""
    context, blank = str(data.get("context")), {}
    if context.endswith(subject.contexts) or any(
        f"{marking.FOLDER}/{video}-" in context for video in subject.shared
    ):
        blank["context"] = ""
    item = str(item_of(data)).partition("-")[0]
    if item in subject.shared:
        blank |= {name: "" for name in _SHOWN if data.get(name)}
    return blank


def _delete_texts(client: LabelStudioClient, task_id: int) -> None:
    """Delete written answers about a task; choices and spans stay."""
    for annotation in client.sdk.annotations.list(str(task_id)):
        result = [dict(part) for part in annotation.result or []]
        stay = [part for part in result if part.get("type") != "textarea"]
        if len(stay) < len(result):
            client.sdk.annotations.update(annotation.id, result=stay)


def _existing_tasks(client: LabelStudioClient, project_id: int) -> list[dict[str, Any]]:
    """Return the tasks of a project; none if it was deleted."""
    from annotation.label_studio.client import NotFoundError

    try:
        client.sdk.projects.get(project_id)
    except NotFoundError:
        return []
    return list(client.tasks(project_id, include="id,data", task_only=True, page_size=1000))


def _projects(home: Home) -> list[int]:
    return tables.read(home, "annotations")["project_id"].drop_nulls().unique().to_list()


def _purge_label_studio_files(settings: Settings, subject: DataSubject) -> dict[str, Any]:
    """Remove deleted rows from database pages, logs and exports of the server."""
    folder = settings.place.studio
    if settings.label_studio_url:
        return {"Label Studio": "rows are deleted; its operator has to purge backups and logs"}
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


def _delete_run_history(home: Home, subject: DataSubject) -> dict[str, int]:
    """Delete records of past runs, which hold contact sheets and file names.

    Batches stay registered, so no finished work is repeated.
    """
    if not (home.dagster / "history").is_dir():
        return {}
    from dagster import DagsterRunStatus

    from pipeline.dagster_instance.instance import open_instance

    in_progress = (DagsterRunStatus.STARTED, DagsterRunStatus.STARTING)
    instance = open_instance(home)
    runs = instance.get_runs()
    for run in runs:
        if run.status in in_progress:
            # It waits between two steps for this erasure, and goes on with its own record.
            instance.event_log_storage.delete_events(run.run_id)
        else:
            instance.delete_run(run.run_id)
    instance.wipe_assets(instance.all_asset_keys())
    _delete_empty_partitions(instance, home, subject)
    for folder in (home.dagster / "storage").glob("*"):
        shutil.rmtree(folder, ignore_errors=True)
    instance.dispose()
    for database in sorted(home.dagster.rglob("*.db")):
        _vacuum(database)
    return {"records of runs": len(runs)}


def _delete_empty_partitions(instance: DagsterInstance, home: Home, subject: DataSubject) -> None:
    """Delete empty batches that are named after the data subject."""
    from pipeline.defs.partitions import NAME

    batches = set(tables.read(home, "videos")["batch"])
    for key in instance.get_dynamic_partitions(NAME):
        named = key in _batch_names(subject)
        if named and key not in batches and not (home.inbox / key).exists():
            instance.delete_dynamic_partition(NAME, key)


def _batch_names(subject: DataSubject) -> set[str]:
    names = set()
    for one in subject.spellings:
        with contextlib.suppress(SettingsError):  # no letter of it can be in a batch's name
            names.add(batch_from(one))
    return names


def _vacuum(path: Path) -> None:
    """Rewrite a SQLite file without deleted rows; truncate its log."""
    with closing(sqlite3.connect(path, timeout=30)) as connection:
        try:
            connection.execute("PRAGMA secure_delete = ON")
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.OperationalError as error:
            raise ReleaseError(
                f"The database {path.name} cannot be rewritten",
                got=str(error),
                hint="stop `risorius dev`, then run the same command again",
            ) from error
    with contextlib.suppress(OSError):
        path.with_name(path.name + "-journal").unlink()


def _print_list(console: Console, title: str, lines: list[str]) -> None:
    from rich.markup import escape

    if lines:
        console.print(f"{title}:")
    for line in lines[:_LISTED]:
        console.print(f"  {escape(line)}")
    if len(lines) > _LISTED:
        console.print(f"  … and {len(lines) - _LISTED} more")
