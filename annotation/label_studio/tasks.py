"""Faces into Label Studio, each once: listed first, sent in bulk, listed again before any retry."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from annotation.label_studio.answers import result_of
from annotation.label_studio.client import Client, LostAnswerError
from annotation.label_studio.media import Source
from annotation.label_studio.projects import MODEL_VERSION
from annotation.label_studio.task_order import places
from warehouse.errors import StudioError
from warehouse.ids import sha256_of
from warehouse.storage.locks import file_lock

ASKED_AGAIN = "audit"
"""The reason that makes a second task of a face whose first one is done."""

_CHUNK = 500
"""Tasks per import: one request is stored whole or not at all."""

_SETTLE_S = 2.0
_LOCK_S = 600


@dataclass(frozen=True)
class Pushed:
    """``new`` faces got a task now, ``known`` ones had one; ``task_ids`` maps face id to task."""

    new: int
    known: int
    task_ids: dict[str, int]


@dataclass(frozen=True)
class Task:
    """A task there is: ``done`` when the stream offers it no more."""

    id: int
    done: bool


def push(
    client: Client,
    project_id: int,
    tasks: pl.DataFrame,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Pushed:
    """Give every face a task, unless it has one; may be run, killed and run again at will.

    The server knows no unique key, so faces are matched by ``data.face_id`` and one process at
    a time pushes to a project. A face whose reason is ``audit`` is asked again: it gets a new
    task when none of its tasks is open.

    Args:
        client: also says where the server gets the pictures from.
        tasks: face_id, crop, context (media keys) and reason; the first row of a face counts.
            Optionally ``clip`` (media key or null) and ``prediction`` (a label to show or null;
            without the column no predicted label is ever sent).
        progress: called with faces done and faces in all.

    Raises:
        StudioError: the server is away or refuses; what was stored before stays and is known
            to the next push.
    """
    rows = rows_of(tasks)
    with alone_in(f"{client.url} {project_id}", doing=f"pushing to project {project_id}"):
        there = tasks_there(client, project_id)
        missing = [face for face in rows if is_missing(rows[face], there)]
        _say(progress, len(rows) - len(missing), len(rows))
        for start in range(0, len(missing), _CHUNK):
            chunk = {face: rows[face] for face in missing[start : start + _CHUNK]}
            there |= send(client, project_id, chunk)
            _say(progress, len(rows) - len(missing) + start + len(chunk), len(rows))
    return Pushed(
        new=len(missing),
        known=len(rows) - len(missing),
        task_ids={face: there[face].id for face in rows},
    )


def task_ids(client: Client, project_id: int) -> dict[str, int]:
    """Face id to task id of everything in a project; the oldest task of a face counts."""
    found: dict[str, int] = {}
    for face, task in _listed(client, project_id, include="id,data"):
        found.setdefault(face, task.id)
    return found


def tasks_there(client: Client, project_id: int) -> dict[str, Task]:
    """Face id to its task: the oldest one that is open, else the oldest."""
    found: dict[str, Task] = {}
    for face, task in _listed(client, project_id, include="id,data,is_labeled"):
        if face not in found or (found[face].done and not task.done):
            found[face] = task
    return found


def rows_of(tasks: pl.DataFrame) -> dict[str, dict[str, Any]]:
    """Face id to its row, in order; the first row of a face counts."""
    wanted = ("face_id", "crop", "context", "reason", "clip", "prediction")
    chosen = tasks.select(name for name in wanted if name in tasks.columns)
    return {
        row["face_id"]: row
        for row in chosen.unique("face_id", keep="first", maintain_order=True).to_dicts()
    }


def is_missing(row: Mapping[str, Any], there: Mapping[str, Task]) -> bool:
    """Whether a face still needs a task."""
    task = there.get(row["face_id"])
    return task is None or (row["reason"] == ASKED_AGAIN and task.done)


def send(client: Client, project_id: int, rows: Mapping[str, Mapping[str, Any]]) -> dict[str, Task]:
    """Import one chunk; after a lost answer send only what is really not there, once."""
    tasks = {face: _task(row, client.media) for face, row in rows.items()}
    try:
        return _import(client, project_id, tasks)
    except LostAnswerError:
        there = _settled(client, project_id)
        rest = {face: task for face, task in tasks.items() if is_missing(rows[face], there)}
        if rest:
            there |= _import(client, project_id, rest)
        return {face: there[face] for face in tasks}


def alone_in(place: str, *, doing: str) -> AbstractContextManager[None]:
    """Hold the lock of a place on a server, among this machine's processes of this user."""
    name = sha256_of([f"{place} {os.getuid()}".encode()])[:16]
    path = Path(tempfile.gettempdir()) / f"risorius-push-{name}.lock"
    return file_lock(path, purpose=doing, timeout_s=_LOCK_S)


def _listed(client: Client, project_id: int, *, include: str) -> list[tuple[str, Task]]:
    found = []
    for task in client.tasks(project_id, include=include, task_only=True, page_size=1000):
        face = (task.get("data") or {}).get("face_id")
        if isinstance(face, str):
            found.append((face, Task(task["id"], bool(task.get("is_labeled")))))
    return found


def _task(row: Mapping[str, Any], media: Source) -> dict[str, Any]:
    data = {
        "face_id": row["face_id"],
        "crop": media.address(row["crop"] or ""),
        # The page names $context, so the key must be there even without a picture.
        "context": media.address(row["context"]) if row["context"] else "",
        "reason": row["reason"] or "",
        **places(row["face_id"]),
    }
    if row.get("clip"):
        data["clip"] = media.address(row["clip"])
    if not row.get("prediction"):
        return {"data": data}
    shown = {"model_version": MODEL_VERSION, "result": result_of([row["prediction"]])}
    return {"data": data | {"prediction": row["prediction"]}, "predictions": [shown]}


def _import(client: Client, project_id: int, chunk: dict[str, dict[str, Any]]) -> dict[str, Task]:
    answer = client.write(
        "POST",
        f"/api/projects/{project_id}/import?return_task_ids=true&commit_to_project=true",
        list(chunk.values()),
    )
    ids = answer.get("task_ids") or []
    if answer.get("task_count") != len(chunk) or len(ids) != len(chunk):
        raise StudioError(
            f"{len(chunk)} new tasks in project {project_id} at {client.url}",
            got=f"{answer.get('task_count')}",
            hint="run the same command again; faces that have a task are not sent twice",
        )
    return {face: Task(number, done=False) for face, number in zip(chunk, ids, strict=True)}


def _settled(client: Client, project_id: int) -> dict[str, Task]:
    """The tasks there, once two looks agree: a cut-off request may still be at work."""
    before = tasks_there(client, project_id)
    while True:
        time.sleep(_SETTLE_S)
        now = tasks_there(client, project_id)
        if now == before:
            return now
        before = now


def _say(progress: Callable[[int, int], None] | None, done: int, total: int) -> None:
    if progress is not None:
        progress(done, total)
