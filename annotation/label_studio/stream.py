"""The stream kept in step with the queue: what has enough votes leaves it, what lacks some is back.

The server closes a task by its own count of annotations. That count knows nothing of a vote given
in another project, of an answer that is malformed, or of one written in another's name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from annotation.label_studio.client import Client


@dataclass(frozen=True)
class Stepped:
    """Tasks taken out of the stream, and put back into it."""

    closed: int
    opened: int


def keep_in_step(client: Client, project_ids: Sequence[int], owed: Mapping[str, int]) -> Stepped:
    """Close tasks of faces that are owed nothing; see that one task is open of each that is.

    Costs one listing per project, and two requests for every task that stands wrong.

    Args:
        project_ids: projects that ask the same question; of two tasks of a face that of the last
            project, and in it the newest, is the one that stays open or is opened again.
        owed: face id to votes still owed; a face that is not in it is owed none.

    Raises:
        StudioError: the server is away or refuses.
    """
    closed, waiting = 0, {face: votes for face, votes in owed.items() if votes > 0}
    done: dict[str, int] = {}
    for project_id in reversed(project_ids):
        for face, number, is_done in _newest_first(client, project_id):
            if is_done:
                done.setdefault(face, number)
            elif face in waiting:
                del waiting[face]
            else:
                _set(client, number, votes=0)
                closed += 1
    back = {face: votes for face, votes in waiting.items() if face in done}
    for face, votes in back.items():
        _set(client, done[face], votes=votes)
    return Stepped(closed=closed, opened=len(back))


def _newest_first(client: Client, project_id: int) -> list[tuple[str, int, bool]]:
    listed = client.tasks(project_id, include="id,data,is_labeled", task_only=True, page_size=1000)
    found = [((task.get("data") or {}).get("face_id"), task) for task in listed]
    return [
        (face, task["id"], bool(task["is_labeled"]))
        for face, task in reversed(found)
        if isinstance(face, str)
    ]


def _set(client: Client, task_id: int, *, votes: int) -> None:
    """Let the stream ask for ``votes`` more answers to a task."""
    task = client.read(f"/api/tasks/{task_id}/")
    given = sum(not row.get("was_cancelled") for row in task["annotations"])
    body = {"overlap": max(1, given + votes), "is_labeled": votes == 0}
    client.write("PATCH", f"/api/tasks/{task_id}/", body)
