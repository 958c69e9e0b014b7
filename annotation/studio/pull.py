"""Every annotation back as events: created, updated, deleted. Nothing lost, nothing twice."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from annotation.studio.answers import answer_of
from annotation.studio.client import Client
from warehouse.schema import TABLES

_INCLUDE = (
    "id,data,updated_at,annotations,result,completed_by,updated_by,lead_time,was_cancelled,"
    "parent_prediction,prediction,created_at"
)
_OVERLAP = timedelta(seconds=60)
"""Read again before the newest thing known: a vote is stamped before it is stored."""

_PASSES = (False, False, True, False, False)
"""Whole or only what changed, until the counts agree: people vote while we read."""


@dataclass(frozen=True)
class User:
    """An account of the server; one that is gone has no e-mail any more."""

    id: int
    email: str


RaterOf = Callable[[User], tuple[str, str]]


@dataclass(frozen=True)
class Pulled:
    """What came in.

    Attributes:
        events: new rows of ``annotations``; append them.
        n_on_server: annotations the server holds, skips included, counted by its database.
        n_standing: annotations that stand in ``known`` and ``events`` together.
    """

    events: pl.DataFrame
    n_on_server: int
    n_standing: int

    @property
    def complete(self) -> bool:
        return self.n_on_server == self.n_standing


def pull(
    client: Client,
    project_id: int,
    *,
    known: pl.DataFrame,
    rater_of: RaterOf,
    now: datetime,
    whole: bool = False,
) -> Pulled:
    """Events since ``known``: only tasks that changed are read, and all of them when counts differ.

    The server's database counts its annotations after each pass. When it disagrees with what
    stands here, deleted tasks are looked for, then everything is read; what still differs after
    that is told by ``Pulled.complete``.

    Args:
        known: the ``annotations`` table so far (all projects, any order).
        rater_of: pseudonym and kind of an account.
        now: our clock; only stamps ``pulled_at``, never decides what is read.
        whole: read every task from the start.

    Raises:
        StudioError: the server is away, refuses the token, or the project is gone.
    """
    state = _State.of(known, project_id, now)
    emails = client.users()
    fresh: list[dict[str, Any]] = []

    def rater(user_id: int | None, before: dict[str, Any] | None) -> tuple[str, str]:
        if user_id in emails:
            return rater_of(User(user_id, emails[user_id]))
        # The account was deleted: its earlier votes keep their pseudonym.
        if before is not None:
            return before["rater_id"], before["rater_kind"]
        return rater_of(User(user_id or 0, ""))

    on_server = 0
    for number, everything in enumerate(_PASSES):
        begun, since = time.monotonic(), None if whole or everything else state.newest
        seen: set[int] = set()
        for task in client.tasks(
            project_id, include=_INCLUDE, since=since - _OVERLAP if since else None
        ):
            seen.add(task["id"])
            fresh += state.compare(task, rater)
        tasks_there, on_server = client.counts(project_id)
        if number > 0 or since is None:
            there = seen if since is None else _ids(client, project_id)
            fresh += state.forget_tasks_not_in(there)
        whole = False
        slow = time.monotonic() - begun > _OVERLAP.total_seconds() / 2
        if on_server == len(state.standing) and not slow:
            break
    return Pulled(_frame(fresh), n_on_server=on_server, n_standing=len(state.standing))


def reconcile(events: pl.DataFrame, project_id: int) -> int:
    """How many annotations of a project stand after all ``events``: created and not deleted."""
    mine = events.filter(pl.col("project_id") == project_id)
    return len(_newest(mine).filter(pl.col("event") != "deleted"))
