"""Faces into Label Studio, each once: listed first, sent in bulk, listed again before any retry."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import polars as pl

from annotation.studio.client import Client, LostAnswerError
from annotation.studio.locks import alone
from warehouse.errors import StudioError
from warehouse.ids import sha256_of

_CHUNK = 500
"""Tasks per import: one request is stored whole or not at all."""

_SETTLE_S = 2.0
_LOCK_S = 600
_LOCAL_FILES = "/data/local-files/?d="


@dataclass(frozen=True)
class Pushed:
    """``new`` faces got a task now, ``known`` ones had one; ``task_ids`` maps face id to task."""

    new: int
    known: int
    task_ids: dict[str, int]


def push(
    client: Client,
    project_id: int,
    tasks: pl.DataFrame,
    *,
    progress: Callable[[int, int], None] | None = None,
    media_url: str = _LOCAL_FILES,
) -> Pushed:
    """Give every face a task, unless it has one; may be run, killed and run again at will.

    The server knows no unique key, so faces are matched by ``data.face_id`` and one process at
    a time pushes to a project. No predicted label is ever sent: the server would show it.

    Args:
        tasks: face_id, crop, context (media keys) and reason; the first row of a face counts.
        progress: called with faces done and faces in all.
        media_url: what a media key is appended to.

    Raises:
        StudioError: the server is away or refuses; what was stored before stays and is known
            to the next push.
    """
    wanted = {
        row["face_id"]: _task(row, media_url)
        for row in reversed(tasks.select("face_id", "crop", "context", "reason").to_dicts())
    }
    order = tasks["face_id"].unique(maintain_order=True).to_list()
    with alone(_lock(client, project_id), doing=f"pushing to project {project_id}", wait_s=_LOCK_S):
        there = task_ids(client, project_id)
        missing = [face for face in order if face not in there]
        _say(progress, len(order) - len(missing), len(order))
        for start in range(0, len(missing), _CHUNK):
            chunk = missing[start : start + _CHUNK]
            there |= _send(client, project_id, {face: wanted[face] for face in chunk})
            _say(progress, len(order) - len(missing) + start + len(chunk), len(order))
    return Pushed(
        new=len(missing),
        known=len(order) - len(missing),
        task_ids={face: there[face] for face in order},
    )


def task_ids(client: Client, project_id: int) -> dict[str, int]:
    """Face id to task id of everything in a project; the oldest task of a face counts."""
    found: dict[str, int] = {}
    for task in client.tasks(project_id, include="id,data", task_only=True, page_size=1000):
        face = (task.get("data") or {}).get("face_id")
        if isinstance(face, str):
            found.setdefault(face, task["id"])
    return found


def _task(row: dict[str, Any], media_url: str) -> dict[str, Any]:
    return {
        "data": {
            "face_id": row["face_id"],
            "crop": media_url + quote(row["crop"] or ""),
            # The page names $context, so the key must be there even without a picture.
            "context": media_url + quote(row["context"]) if row["context"] else "",
            "reason": row["reason"] or "",
        }
    }


def _send(client: Client, project_id: int, chunk: dict[str, dict[str, Any]]) -> dict[str, int]:
    """Import one chunk; after a lost answer send only what is really not there, once."""
    try:
        return _import(client, project_id, chunk)
    except LostAnswerError:
        there = _settled(client, project_id)
        rest = {face: task for face, task in chunk.items() if face not in there}
        if rest:
            there |= _import(client, project_id, rest)
        return {face: there[face] for face in chunk}


def _import(client: Client, project_id: int, chunk: dict[str, dict[str, Any]]) -> dict[str, int]:
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
            mend="run the same command again; faces that have a task are not sent twice",
        )
    return dict(zip(chunk, ids, strict=True))


def _settled(client: Client, project_id: int) -> dict[str, int]:
    """The tasks there, once two looks agree: a cut-off request may still be at work."""
    before = task_ids(client, project_id)
    while True:
        time.sleep(_SETTLE_S)
        now = task_ids(client, project_id)
        if now == before:
            return now
        before = now


def _lock(client: Client, project_id: int) -> Path:
    name = sha256_of([f"{client.url} {project_id} {os.getuid()}".encode()])[:16]
    return Path(tempfile.gettempdir()) / f"risorius-push-{name}.lock"


def _say(progress: Callable[[int, int], None] | None, done: int, total: int) -> None:
    if progress is not None:
        progress(done, total)
