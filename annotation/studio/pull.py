"""Every annotation back as events: created, updated, deleted. Nothing lost, nothing twice."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

import polars as pl

from annotation.studio.client import Client
from annotation.studio.events import Rater, Row, Standing, frame, standing
from annotation.studio.project import last_change
from warehouse.errors import StudioError

_INCLUDE = (
    "id,data,updated_at,annotations,result,completed_by,updated_by,lead_time,was_cancelled,"
    "parent_prediction,created_at"
)
_OVERLAP = timedelta(seconds=60)
"""Read again before the newest thing known: a vote is stamped before it is stored."""

_PASSES = 5
_WHOLE_PASS = 2
"""Two looks at what changed, then at everything, then twice at what came in meanwhile."""


@dataclass(frozen=True)
class User:
    """An account of the server; ``email`` is empty when the account was deleted."""

    id: int
    email: str


@dataclass(frozen=True)
class Pulled:
    """What came in.

    Attributes:
        events: new rows of ``annotations``, to be appended.
        n_on_server: annotations the server holds, skips included, as its database counts them.
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
    rater_of: Callable[[User], tuple[str, str]],
    now: datetime,
    whole: bool = False,
    label_set: str = "expressions",
) -> Pulled:
    """Events since ``known``: tasks that changed are read, and all of them when counts differ.

    After each pass the server's database counts its annotations. When it disagrees with what
    stands here, deleted tasks are looked for and then everything is read again; what still
    differs shows in ``Pulled.complete``.

    Args:
        known: the ``annotations`` table so far, of all projects, in any order.
        rater_of: pseudonym and kind of an account.
        now: our clock; stamps ``pulled_at`` and decides nothing about what is read.
        whole: read every task from the start.
        label_set: what the project's page asks.

    Raises:
        StudioError: the server is away, refuses the token, or the project is gone or another one.
    """
    _check_same_project(client, project_id, known)
    here = Standing.of(known, project_id, now, label_set=label_set)
    rater = _rater(client, rater_of)
    events: list[Row] = []
    since, n_on_server = None if whole else here.newest, 0
    for number in range(_PASSES):
        begun, mark = time.monotonic(), last_change(client, project_id)
        from_when = since - _OVERLAP if since else None
        seen = set()
        for task in client.tasks(project_id, include=_INCLUDE, since=from_when):
            seen.add(task["id"])
            events += here.compare(task, rater)
        if since is None or number > 0:
            events += here.forget_tasks_not_in(seen if since is None else _ids(client, project_id))
        _, n_on_server = client.counts(project_id)
        # A slow pass may have missed an edit of a page it had already read.
        quick = time.monotonic() - begun < _OVERLAP.total_seconds() / 2
        if quick and n_on_server == len(here.rows):
            break
        since = datetime.fromisoformat(mark) if mark and number + 1 != _WHOLE_PASS else None
    return Pulled(frame(events), n_on_server=n_on_server, n_standing=len(here.rows))


def reconcile(events: pl.DataFrame, *, project_id: int, n_on_server: int) -> int:
    """Annotations the server holds beyond those that stand after ``events``; 0 when all is well."""
    return n_on_server - standing(events, project_id).height


def _rater(client: Client, rater_of: Callable[[User], tuple[str, str]]) -> Rater:
    emails = client.users()
    named = {number: rater_of(User(number, email)) for number, email in emails.items()}

    def rater(user_id: int | None, before: Row | None) -> tuple[str, str]:
        if user_id in named:
            return named[user_id]
        if before is not None:
            return before["rater_id"], before["rater_kind"]
        return rater_of(User(user_id or 0, ""))

    return rater


def _ids(client: Client, project_id: int) -> set[int]:
    return {
        task["id"]
        for task in client.tasks(project_id, include="id", task_only=True, page_size=1000)
    }


def _check_same_project(client: Client, project_id: int, known: pl.DataFrame) -> None:
    """Ids count from 1 again in a database made anew; then every old vote would look deleted."""
    made = datetime.fromisoformat(client.read(f"/api/projects/{project_id}/")["created_at"])
    oldest = known.filter(pl.col("project_id") == project_id)["created_at"].min()
    if oldest is not None and oldest < made:  # type: ignore[operator]
        raise StudioError(
            f"project {project_id} at {client.url} to be the one whose votes are in the tables",
            got=f"a project made on {made:%Y-%m-%d %H:%M}, after the first of those votes",
            mend="put back the server's database, or delete this project in Label Studio: the next "
            "push makes one under a number of its own",
        )
