"""Every annotation back as events: created, updated, deleted. Nothing lost, nothing twice."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import polars as pl

from annotation.label_studio.client import Client
from annotation.label_studio.event_log import Raters, Standing
from annotation.label_studio.ledger import Ledger
from annotation.label_studio.projects import last_change
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
class Gathered:
    """How a pull ended.

    Attributes:
        n_events: new events.
        n_on_server: annotations the server holds, skips included, as its database counts them.
        n_standing: annotations that stand here, with what came in.
    """

    n_events: int
    n_on_server: int
    n_standing: int

    @property
    def complete(self) -> bool:
        return self.n_on_server == self.n_standing


@dataclass(frozen=True)
class Pulled(Gathered):
    """``events`` are new rows of ``annotations``, to be appended."""

    events: pl.DataFrame


def gather(
    client: Client,
    project_id: int,
    *,
    known: Callable[[], pl.LazyFrame],
    keep: Callable[[pl.DataFrame], None],
    rater_of: Callable[[User], tuple[str, str]],
    now: datetime,
    whole: bool = False,
    label_set: str = "expressions",
    page_size: int = 500,
) -> Gathered:
    """Write down the events since ``known``: tasks that changed are read, all when counts differ.

    After each pass the server's database counts its annotations. When it disagrees with what
    stands here, deleted tasks are looked for and then everything is read again; what still
    differs shows in ``Gathered.complete``. A page of tasks and a part of events are held at a
    time, and some 40 bytes for each annotation that stands.

    Tasks are read by rising id, so what was kept of a pull that did not end hides how far it came:
    the next one must read the whole.

    Args:
        known, keep: see ``Ledger``.
        rater_of: pseudonym and kind of an account.
        now: our clock; stamps ``pulled_at`` and decides nothing about what is read.
        whole: read every task from the start.
        label_set: what the project's page asks.
        page_size: tasks read at a time.

    Raises:
        StudioError: the server is away, refuses the token, or the project is gone or another one.
    """
    ledger = Ledger(project_id, known=known, keep=keep)
    oldest, newest, last = ledger.span()
    _check_same_project(client, project_id, oldest)
    here = Standing(ledger, max(now, last) if last else now, newest, label_set)
    raters = _raters(client, rater_of)
    since, n_on_server = None if whole else newest, 0
    for number in range(_PASSES):
        begun, mark = time.monotonic(), last_change(client, project_id)
        from_when = since - _OVERLAP if since else None
        seen: set[int] = set()
        for page in client.pages(
            project_id, include=_INCLUDE, since=from_when, page_size=page_size
        ):
            seen.update(task["id"] for task in page)
            here.compare(page, raters)
        if since is None or number > 0:
            here.forget_tasks_not_in(seen if since is None else _ids(client, project_id))
        _, n_on_server = client.counts(project_id)
        # A slow pass may have missed an edit of a page it had already read.
        quick = time.monotonic() - begun < _OVERLAP.total_seconds() / 2
        if quick and n_on_server == here.rows.height:
            break
        since = datetime.fromisoformat(mark) if mark and number + 1 != _WHOLE_PASS else None
    ledger.flush()
    return Gathered(ledger.n_events, n_on_server=n_on_server, n_standing=here.rows.height)


def pull(client: Client, project_id: int, *, known: pl.DataFrame, **given: Any) -> Pulled:
    """``gather`` for a table that is held in memory: new events are returned, not written.

    Args:
        known: the ``annotations`` table so far, of all projects, in any order.
        given: as for ``gather``.
    """
    kept = [known.clear()]
    found = gather(
        client, project_id, known=lambda: pl.concat([known, *kept]).lazy(), keep=kept.append,
        **given,
    )  # fmt: skip
    return Pulled(found.n_events, found.n_on_server, found.n_standing, events=pl.concat(kept))


def _raters(client: Client, rater_of: Callable[[User], tuple[str, str]]) -> Raters:
    emails = client.users()
    return Raters(
        named={number: rater_of(User(number, email)) for number, email in emails.items()},
        other=lambda number: rater_of(User(number or 0, "")),
    )


def _ids(client: Client, project_id: int) -> set[int]:
    return {
        task["id"]
        for task in client.tasks(project_id, include="id", task_only=True, page_size=1000)
    }


def _check_same_project(client: Client, project_id: int, oldest: datetime | None) -> None:
    """Ids count from 1 again in a database made anew; then every old vote would look deleted."""
    made = datetime.fromisoformat(client.read(f"/api/projects/{project_id}/")["created_at"])
    if oldest is not None and oldest < made:
        raise StudioError(
            f"project {project_id} at {client.url} to be the one whose votes are in the tables",
            got=f"a project made on {made:%Y-%m-%d %H:%M}, after the first of those votes",
            hint="put back the server's database, or delete this project in Label Studio: the next "
            "push makes one under a number of its own",
        )
