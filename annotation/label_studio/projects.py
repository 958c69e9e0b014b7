"""One Label Studio project per question: found again or made, set up so that votes stay blind."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from annotation.label_studio import drawings
from annotation.label_studio.client import Client
from annotation.label_studio.guide import instruction
from annotation.label_studio.labeling_config import fingerprint, labeling_config
from annotation.label_studio.marks import (
    Mark,
    label_set_of,
    owner_hash,
    page_fingerprint,
    read_mark,
)
from annotation.label_studio.media import Folder
from annotation.label_studio.page import Page
from annotation.label_studio.storages import follow, unlock_folders
from warehouse.errors import StudioError
from warehouse.storage.media import KINDS

_FOLDERS = (*KINDS, drawings.FOLDER)
CLIPS = "clips"
"""The folder of the media store with short videos; only projects that show them may serve it."""

MODEL_VERSION = "risorius"
"""The name under which predictions are shown, where a setting says so."""

_ENTER = {
    "annotation:annotation:submit": {"key": "enter", "active": True},
    "annotation:annotation:update": {"key": "enter", "active": True},
}


@dataclass(frozen=True)
class Project:
    """A project on a server.

    Attributes:
        url: its page.
        round: 1 for the first project of a page, 2 for the one begun when that was full, …
        page: the fingerprint of what it was made to ask.
        edited: its labeling config is no longer the one it was made with.
        label_set: which labels it asks for.
    """

    id: int
    url: str
    round: int = 1
    page: str = ""
    edited: bool = False
    label_set: str = "expressions"


def ensure_project(
    client: Client,
    *,
    title: str,
    wanted_votes: int,
    media_dir: Path,
    owner: str = "",
    avoid: Collection[int] = (),
    page: Page | None = None,
    round: int = 1,  # noqa: A002
) -> Project:
    """The project with this title, page, round and owner: found, else made.

    A project is recognised by a mark in its description, for titles are not unique: the page's
    hash (so a new page makes a new project; changing one under votes would spoil them), the
    owner's, and the round.

    Args:
        wanted_votes: the stream offers a face until it has this many votes; may be raised later.
        media_dir: holds ``crops`` and ``contexts``, and is given the drawings of the guide; must
            be what the server may serve, unless it reads them from a bucket (``client.media``).
        owner: tells homes apart that share a server; any text, kept as a hash.
        avoid: ids not to take for a new project, because tables already know another one by them.
        page: what it asks; the eight expressions by default.

    Raises:
        StudioError: the server refuses, cannot get at the pictures, or somebody changed the
            labeling config by hand.
    """
    page = page or Page()
    config = labeling_config(page)
    mark = Mark(page_fingerprint(page), owner_hash(owner, title), round)
    found = _find(client, mark)
    if found is None:
        body = _settings(title, mark, config=config, page=page)
        found = _create(client, body, mark=mark, avoid=avoid)
    elif fingerprint(found["label_config"] or "") != fingerprint(config):
        raise StudioError(
            f"the labeling config of project {found['id']} at {client.url} as it was made",
            got="one that was edited by hand; new faces would be asked another question",
            hint="run `risorius label push --restore-config` to put it back, or take the mark "
            f"{mark} out of the project's description to leave it alone and have a new one made",
        )
    if found["maximum_annotations"] != wanted_votes:
        # Set apart from creation, so that a lost answer to either is mended by the next run.
        client.write(
            "PATCH", f"/api/projects/{found['id']}/", {"maximum_annotations": wanted_votes}
        )
    drawings.write_drawings(media_dir)
    if isinstance(client.media, Folder):
        folders = (*_FOLDERS, CLIPS) if page.clip else _FOLDERS
        unlock_folders(client, found["id"], media_dir, folders)
    follow(client, found["id"], owner=owner)
    return _project(client, found | {"label_config": config}, mark)


def find_projects(client: Client, *, titles: Collection[str], owner: str = "") -> list[Project]:
    """Every project of these titles and owner, by id; whatever it asks, votes lie in it."""
    wanted = {owner_hash(owner, title) for title in titles}
    marks = {row["id"]: read_mark(row.get("description") or "") for row in _rows(client)}
    mine = {number: mark for number, mark in marks.items() if mark and mark.owner in wanted}
    return [_project(client, row, mine[row["id"]]) for row in _with_configs(client, sorted(mine))]


def restore_config(client: Client, project: Project, page: Page) -> bool:
    """Put back the labeling config a project was made with; False when it is not of this page.

    Raises:
        StudioError: the server refuses, because votes exist that the config has no place for.
    """
    if page_fingerprint(page) != project.page:
        return False
    body = {"label_config": labeling_config(page)}
    client.write("PATCH", f"/api/projects/{project.id}/", body)
    return True


def submit_with_enter(person: Client) -> None:
    """Let the person behind this client submit with a plain Enter; their own token is needed."""
    person.write("PATCH", "/api/current-user/hotkeys/", {"custom_hotkeys": _ENTER})


def last_change(client: Client, project_id: int) -> str | None:
    """When anything in a project last moved, as the server writes it; None when it is empty."""
    page = client.read(
        "/api/tasks/", project=project_id, page=1, page_size=1, fields="task_only",
        include="id,updated_at", query='{"ordering": ["-tasks:updated_at"]}',
    )["tasks"]  # fmt: skip
    return page[0]["updated_at"] if page else None


def _rows(client: Client) -> Iterator[dict[str, Any]]:
    for page in range(1, 1000):
        answer = client.read(
            "/api/projects/", page=page, page_size=100,
            include="id,description,maximum_annotations",
        )  # fmt: skip
        yield from answer["results"]
        if not answer.get("next"):
            return


def _with_configs(client: Client, numbers: list[int]) -> list[dict[str, Any]]:
    """Rows of a few projects with their configs, by id: too long to be read for all there are."""
    found: list[dict[str, Any]] = []
    for start in range(0, len(numbers), 100):
        some = numbers[start : start + 100]
        answer = client.read(
            "/api/projects/", ids=",".join(map(str, some)), page_size=100,
            include="id,label_config,maximum_annotations",
        )  # fmt: skip
        found += answer["results"]
    return sorted(found, key=lambda row: row["id"])


def _find(client: Client, mark: Mark) -> dict[str, Any] | None:
    """Of several (two pipelines at the same moment) everybody takes the oldest."""
    found = [row for row in _rows(client) if str(mark) in (row.get("description") or "")]
    oldest = min((row["id"] for row in found), default=None)
    return next(iter(_with_configs(client, [oldest])), None) if oldest is not None else None


def _project(client: Client, row: dict[str, Any], mark: Mark) -> Project:
    stored = row["label_config"] or ""
    return Project(
        id=row["id"],
        url=f"{client.url}/projects/{row['id']}/data",
        round=mark.round,
        page=mark.page,
        edited=not mark.fits(stored),
        label_set=label_set_of(stored),
    )


def _create(
    client: Client, body: dict[str, Any], *, mark: Mark, avoid: Collection[int]
) -> dict[str, Any]:
    made = client.write("POST", "/api/projects/", body)
    while made["id"] in avoid:
        # A database made anew counts from 1 again; ids in our tables must keep one meaning.
        client.write("DELETE", f"/api/projects/{made['id']}/")
        made = client.write("POST", "/api/projects/", body)
    return _find(client, mark) or made


def _settings(title: str, mark: Mark, *, config: str, page: Page) -> dict[str, Any]:
    return {
        "title": f"{title[:42]} {mark.round}" if mark.round > 1 else title,
        "description": f"Facial expressions, several votes per face. {mark}",
        "label_config": config,
        "expert_instruction": instruction(page),
        "show_instruction": True,
        "show_skip_button": True,
        "enable_empty_annotation": False,
        "show_annotation_history": False,
        "show_collab_predictions": page.predictions,
        # The stream shows predictions of one model only, and of none unless it is named.
        "model_version": MODEL_VERSION if page.predictions else "",
        # Every annotator gets an order of their own, so tiredness does not fall on the same faces.
        "sampling": "Uniform sampling",
        "skip_queue": "REQUEUE_FOR_OTHERS",
    }
