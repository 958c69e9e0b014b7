"""A home's projects: one page of questions, spread over rounds of a bounded size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import polars as pl

from annotation.label_studio.client import Client
from annotation.label_studio.projects import Project
from annotation.label_studio.tasks import alone_in, is_missing, rows_of, send, tasks_there

_CHUNK = 500


@dataclass(frozen=True)
class Spread:
    """What a push over rounds did.

    Attributes:
        new, known: faces that got a task now, and that had one.
        projects: the projects of the page, by round.
        tasks: tasks in each of them.
    """

    new: int
    known: int
    projects: list[Project]
    tasks: list[int]


def push_rounds(
    client: Client,
    tasks: pl.DataFrame,
    *,
    ensure: Callable[[int], Project],
    rounds: int,
    cap: int,
    place: str,
    progress: Callable[[int, int], None] | None = None,
) -> Spread:
    """Give every face a task in one of the rounds; a project beyond its cap begins the next one.

    Two processes of one machine that push at once wait for each other, across rounds.

    Args:
        tasks: as for ``push``.
        ensure: the project of a round, made when missing.
        rounds: how many rounds there are already.
        cap: tasks a project may hold; existing bigger ones stay as they are.
        place: names the home and page, for the lock.

    Raises:
        StudioError: the server is away or refuses; the next push goes on where this one ended.
    """
    rows = rows_of(tasks)
    with alone_in(f"{client.url} {place}", doing=f"pushing to {client.url}"):
        projects = [ensure(number) for number in range(1, max(1, rounds) + 1)]
        listings = [tasks_there(client, project.id) for project in projects]
        there = {face: task for listing in listings for face, task in listing.items()}
        # A face that is open in any round is not asked in another one.
        there |= {face: t for listing in listings for face, t in listing.items() if not t.done}
        missing = [face for face in rows if is_missing(rows[face], there)]
        known, sizes = len(rows) - len(missing), [client.counts(p.id)[0] for p in projects]
        done = 0
        while done < len(missing):
            if sizes[-1] >= cap:
                projects.append(ensure(len(projects) + 1))
                sizes.append(client.counts(projects[-1].id)[0])
                continue
            chunk = missing[done : done + min(_CHUNK, cap - sizes[-1])]
            send(client, projects[-1].id, {face: rows[face] for face in chunk})
            done, sizes[-1] = done + len(chunk), sizes[-1] + len(chunk)
            if progress is not None:
                progress(known + done, len(rows))
    return Spread(new=len(missing), known=known, projects=projects, tasks=sizes)
