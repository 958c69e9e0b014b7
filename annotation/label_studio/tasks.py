"""Create one Label Studio task per face; open and close tasks.

A task is open while its face misses votes.

The server has no unique key, so tasks are listed first, imported in bulk, and listed again
before anything is repeated.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from annotation.label_studio.answers import result_of
from annotation.label_studio.client import LabelStudioClient, LostAnswerError
from annotation.label_studio.media import Source
from annotation.label_studio.projects import MODEL_VERSION
from warehouse.ids import sha256_of
from warehouse.storage.locks import file_lock

REANNOTATE = "audit"
"""Reason that gives a face a second task when its first one is done."""

N_ORDERS = 8
"""Shuffles stored in every task; annotators share them in turn."""

_CHUNK = 500
"""Tasks per import: one request is stored whole or not at all."""

_SETTLE_S = 2.0
_LOCK_S = 600


TaskOf = Callable[[Mapping[str, Any], Source], dict[str, Any]]
"""Row and media source to a task as the server imports it."""


class Task(NamedTuple):
    """A task on the server; ``done`` if the server no longer hands it out."""

    id: int
    done: bool


@dataclass
class PushResult:
    """Outcome of a push.

    Attributes:
        new, known: faces that got a task, and faces that had one.
        task_ids: face id to task id.
        tasks: project id to its number of tasks.
        url: address of the first project.
        links: pseudonym to the annotator's labelling link.
        closed, reopened: tasks closed because their face has enough votes, and reopened
            because votes are missing.
    """

    new: int = 0
    known: int = 0
    task_ids: dict[str, int] = field(default_factory=dict)
    tasks: dict[int, int] = field(default_factory=dict)
    url: str = ""
    links: dict[str, str] = field(default_factory=dict)
    closed: int = 0
    reopened: int = 0


def push(
    client: LabelStudioClient,
    tasks: pl.DataFrame,
    project: Callable[[int], int],
    *,
    rounds: int = 1,
    cap: int = sys.maxsize,
    lock: str = "",
    progress: Callable[[int, int], None] = lambda done, total: None,
    task_of: TaskOf | None = None,
) -> PushResult:
    """Create a task for every face that has none.

    Safe to repeat and to interrupt.

    Faces are matched by ``data.face_id``. A face whose reason is ``audit`` gets another task if
    none of its tasks is open. A project at its cap begins the next round. Processes of one
    machine that push at once wait for each other.

    Args:
        client: its ``media`` give the addresses of pictures.
        tasks: face_id, crop, context (media keys) and reason; the first row of a face counts.
            Optionally ``clip`` (media key or null) and ``prediction`` (a label to show or null;
            without the column no predicted label is sent).
        project: returns the project id of a round, creating the project if missing.
        rounds: number of existing rounds.
        cap: tasks that a project may hold; larger existing projects stay as they are.
        lock: identifies the home and page for the lock.
        progress: called with faces done and faces in total.
        task_of: makes the task of a row; by default that of a face. Other items name themselves
            in the column ``face_id`` and in ``data.item_id``.

    Raises:
        StudioError: the server is unreachable or rejects a request. Stored tasks stay and are
            found by the next push.
    """
    make = task_of or _task
    rows = _rows(tasks)
    with _push_lock(f"{client.url} {lock}", doing=f"pushing to {client.url}"):
        projects = [project(number) for number in range(1, rounds + 1)]
        # An open task in any round wins over a done one.
        there: dict[str, Task] = {}
        for listing in [list_tasks(client, number) for number in projects]:
            there |= {
                face: task
                for face, task in listing.items()
                if face not in there or there[face].done
            }
        missing = [face for face in rows if _is_missing(rows[face], there)]
        sizes = [client.counts(number)[0] for number in projects]
        known, done = len(rows) - len(missing), 0
        progress(known, len(rows))
        while done < len(missing):
            if sizes[-1] >= cap:
                projects.append(project(len(projects) + 1))
                sizes.append(client.counts(projects[-1])[0])
                continue
            chunk = missing[done : done + min(_CHUNK, cap - sizes[-1])]
            there |= _send(client, projects[-1], {face: rows[face] for face in chunk}, make)
            done, sizes[-1] = done + len(chunk), sizes[-1] + len(chunk)
            progress(known + done, len(rows))
    return PushResult(
        new=len(missing),
        known=known,
        task_ids={face: there[face].id for face in rows},
        tasks=dict(zip(projects, sizes, strict=True)),
    )


def list_tasks(client: LabelStudioClient, project_id: int) -> dict[str, Task]:
    """Return face id to its task: the oldest open one, else the oldest."""
    found: dict[str, Task] = {}
    for face, task in _listing(client, project_id):
        if face not in found or (found[face].done and not task.done):
            found[face] = task
    return found


def open_and_close(
    client: LabelStudioClient, project_ids: Sequence[int], missing_votes: Mapping[str, int]
) -> tuple[int, int]:
    """Close tasks of faces that miss no vote.

    Keep one task open for each that does.

    The server closes a task by its own count of annotations. That count does not know votes in
    other projects, malformed answers, and answers written under another account's name.

    Costs one listing per project and two requests per task to change.

    Args:
        project_ids: projects with the same questions. The newest task in the last project is
            the one that stays open or is reopened.
        missing_votes: face id to number of votes; an absent face misses none.

    Returns:
        Numbers of closed and of reopened tasks.

    Raises:
        StudioError: the server is unreachable or rejects a request.
    """
    closed, waiting = 0, {face: votes for face, votes in missing_votes.items() if votes > 0}
    done: dict[str, int] = {}
    for project_id in reversed(project_ids):
        for face, task in reversed(_listing(client, project_id)):
            if task.done:
                done.setdefault(face, task.id)
            elif face in waiting:
                del waiting[face]
            else:
                _set_missing(client, task.id, votes=0)
                closed += 1
    reopened = {face: votes for face, votes in waiting.items() if face in done}
    for face, votes in reopened.items():
        _set_missing(client, done[face], votes=votes)
    return closed, len(reopened)


def shuffle_positions(face_id: str) -> dict[str, str]:
    """Return a face's sort key in each shuffle, as fields of task data."""
    return {
        _shuffle(number): sha256_of([f"{number}|{face_id}".encode()])[:8]
        for number in range(N_ORDERS)
    }


def annotator_links(
    client: LabelStudioClient, project_id: int, annotators: list[str]
) -> dict[str, str]:
    """Return the link by which each annotator labels in an order of their own.

    The server's "label all" hands out the face that most others have answered, whatever
    sampling the project names, so annotators would follow each other. A tab with its own
    ordering is respected: each annotator gets one.

    Args:
        annotators: pseudonyms, which are the titles of the tabs. The first eight get eight
            different orders.

    Raises:
        StudioError: the server is unreachable or rejects a request.
    """
    views = client.sdk.views.list(project=project_id)
    tabs = {_data(view).get("title") or "": view.id for view in views}
    links = {}
    for number, annotator in enumerate(sorted(annotators)):
        tab = tabs.get(annotator) or _create_tab(client, project_id, annotator, number % N_ORDERS)
        links[annotator] = f"{client.url}/projects/{project_id}/data?tab={tab}&labeling=1"
    return links


def item_of(data: Mapping[str, Any]) -> Any:
    """Return the id of a task's item: of a face, or of any other item."""
    return data.get("face_id") or data.get("item_id")


def _rows(tasks: pl.DataFrame) -> dict[str, dict[str, Any]]:
    """Return face id to its row in order; the first row of a face counts."""
    wanted = ("face_id", "crop", "context", "reason", "clip", "prediction", "data")
    chosen = tasks.select(name for name in wanted if name in tasks.columns)
    return {
        row["face_id"]: row
        for row in chosen.unique("face_id", keep="first", maintain_order=True).to_dicts()
    }


def _is_missing(row: Mapping[str, Any], there: Mapping[str, Task]) -> bool:
    task = there.get(row["face_id"])
    return task is None or (row["reason"] == REANNOTATE and task.done)


def _listing(client: LabelStudioClient, project_id: int) -> list[tuple[str, Task]]:
    """Return face id and task of a project's tasks by rising task id."""
    tasks = client.tasks(project_id, include="id,data,is_labeled", task_only=True, page_size=1000)
    rows = [(item_of(task.get("data") or {}), task) for task in tasks]
    return [
        (face, Task(task["id"], bool(task.get("is_labeled"))))
        for face, task in rows
        if isinstance(face, str)
    ]


def _send(
    client: LabelStudioClient,
    project_id: int,
    rows: Mapping[str, Mapping[str, Any]],
    task_of: TaskOf,
) -> dict[str, Task]:
    """Import one chunk.

    After a lost answer, import only what is really missing, once.
    """
    tasks = {face: task_of(row, client.media) for face, row in rows.items()}
    try:
        return _import(client, project_id, tasks)
    except LostAnswerError:
        there = _settled_tasks(client, project_id)
        rest = {face: task for face, task in tasks.items() if _is_missing(rows[face], there)}
        if rest:
            there |= _import(client, project_id, rest)
        return {face: there[face] for face in tasks}


def _import(
    client: LabelStudioClient, project_id: int, tasks: dict[str, dict[str, Any]]
) -> dict[str, Task]:
    ids = client.import_tasks(project_id, list(tasks.values()))
    return {face: Task(number, done=False) for face, number in zip(tasks, ids, strict=True)}


def _settled_tasks(client: LabelStudioClient, project_id: int) -> dict[str, Task]:
    """Return the tasks once two listings agree.

    A cut request may still be executing.
    """
    before = list_tasks(client, project_id)
    while True:
        time.sleep(_SETTLE_S)
        now = list_tasks(client, project_id)
        if now == before:
            return now
        before = now


def _task(row: Mapping[str, Any], media: Source) -> dict[str, Any]:
    data = {
        "face_id": row["face_id"],
        "crop": media.address(row["crop"] or ""),
        # The page names $context, so the key must exist even without a picture.
        "context": media.address(row["context"]) if row["context"] else "",
        "reason": row["reason"] or "",
        **shuffle_positions(row["face_id"]),
    }
    if row.get("clip"):
        data["clip"] = media.address(row["clip"])
    if not row.get("prediction"):
        return {"data": data}
    shown = {"model_version": MODEL_VERSION, "result": result_of([row["prediction"]])}
    return {"data": data | {"prediction": row["prediction"]}, "predictions": [shown]}


def _set_missing(client: LabelStudioClient, task_id: int, *, votes: int) -> None:
    """Let the server hand out a task for ``votes`` more answers."""
    task = client.sdk.tasks.get(str(task_id))
    given = sum(not row.get("was_cancelled") for row in task.annotations or [])
    client.sdk.tasks.update(str(task_id), overlap=max(1, given + votes), is_labeled=votes == 0)


def _push_lock(place: str, *, doing: str) -> Any:
    """Hold the lock of a place on a server.

    The lock holds among the processes of this user on this machine.
    """
    name = sha256_of([f"{place} {os.getuid()}".encode()])[:16]
    path = Path(tempfile.gettempdir()) / f"risorius-push-{name}.lock"
    return file_lock(path, purpose=doing, timeout_s=_LOCK_S)


def _create_tab(client: LabelStudioClient, project_id: int, title: str, number: int) -> Any:
    hidden = [f"tasks:data.{_shuffle(each)}" for each in range(N_ORDERS)]
    data: Any = {
        "title": title,
        "ordering": [f"tasks:data.{_shuffle(number)}"],
        "filters": {"conjunction": "and", "items": []},
        "hiddenColumns": {"explore": hidden, "labeling": hidden},
    }
    return client.sdk.views.create(project=project_id, data=data).id


def _data(view: Any) -> dict[str, Any]:
    data = view.data or {}
    return data if isinstance(data, dict) else data.model_dump()


def _shuffle(number: int) -> str:
    return f"order_{number + 1}"
