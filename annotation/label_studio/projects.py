"""Find, create and restore the Label Studio projects of a home.

One per question and round.

Titles are not unique, so a project is recognised by a tag in its description.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from annotation.label_studio import guide, marking
from annotation.label_studio.client import LabelStudioClient
from annotation.label_studio.item_page import ItemPage, item_config, item_fingerprint
from annotation.label_studio.labeling_config import (
    PREDICTIONS_SHOWN,
    Page,
    fingerprint,
    label_set_of,
    labeling_config,
    page_fingerprint,
)
from annotation.label_studio.media import (
    Bucket,
    Folder,
    check_bucket,
    sync_storage,
    unlock_folders,
    update_addresses,
)
from annotation.label_studio.workspace import Workspace
from warehouse.errors import StudioError
from warehouse.ids import sha256_of
from warehouse.storage import atomic, tables
from warehouse.storage.home import Home
from warehouse.storage.media import KINDS
from warehouse.storage.mirror import SALT

_FOLDERS = (*KINDS, marking.FOLDER, guide.FOLDER)
CLIPS = "clips"
"""Folder of the media store with short videos; served only to projects that show them."""

ITEM_FOLDERS = (CLIPS, "segments", "pictures", "videos")
"""Folders of the media store with what pages about items show."""

MODEL_VERSION = "risorius"
"""Model version under which predictions are stored and shown."""

_TAG = re.compile(r"\[risorius ([0-9a-f]{12}) ([0-9a-f]{8})(?: round (\d+))?\]")
_ENTER = {
    "annotation:annotation:submit": {"key": "enter", "active": True},
    "annotation:annotation:update": {"key": "enter", "active": True},
}


@dataclass(frozen=True)
class Project:
    """A project on a server.

    Attributes:
        url: address of its page.
        round: 1 for the first project of a page, 2 for the one begun when that was full, …
        page: fingerprint of the page it was made with.
        edited: its labeling config is no longer the one it was made with.
        label_set: the label set it asks for.
        created_at: when the server made it; with the id it tells projects apart.
    """

    id: int
    url: str
    round: int = 1
    page: str = ""
    edited: bool = False
    label_set: str = "expressions"
    created_at: datetime | None = None


def ensure(
    workspace: Workspace,
    client: LabelStudioClient,
    *,
    page: Page | ItemPage | None = None,
    round: int = 1,  # noqa: A002
    title: str | None = None,
    votes: int | None = None,
) -> Project:
    """Return the home's project of a page and round; create it if missing.

    Args:
        title, votes: of a self-report project; by default those of the options.

    Raises:
        StudioError: the server rejects a request, the labeling config was edited by hand, or
            another project has the id of the home's.
    """
    home = workspace.home
    known = tables.scan(home, "annotations").select(pl.col("project_id").unique())
    with_votes = set(known.collect()["project_id"].drop_nulls())
    found = ensure_project(
        client,
        title=title or workspace.options.project,
        wanted_votes=votes or workspace.options.wanted_votes,
        media_dir=workspace.home.media,
        owner=workspace.home.salt(),
        avoid=with_votes | {number for number, _ in noted_projects(home)},
        page=page or workspace.page(),
        round=round,
    )
    created_at = dict(noted_projects(home)).get(found.id)
    if created_at not in (None, found.created_at):
        raise another_project(
            client, found.id, found.created_at, known=f"the known one at {created_at}"
        )
    if found.id not in with_votes:
        note_project(home, found)
    return found


def noted_projects(home: Home) -> list[tuple[int, datetime]]:
    """Return id and ``created_at`` of this home's projects.

    A restored or exchanged server gives ids again; such a project is not the home's.
    """
    return [
        (int(path.name.split("-")[1]), datetime.fromisoformat(path.read_text()))
        for path in sorted(home.studio.glob("project-*-created"))
    ]


def note_project(home: Home, project: Project) -> None:
    """Note when a project was created, unless it is noted already."""
    path = home.studio / f"project-{project.id}-created"
    if project.created_at is not None and not path.exists():
        atomic.write_text(path, project.created_at.isoformat())


def another_project(
    client: LabelStudioClient, project_id: int, created_at: datetime | None, *, known: str
) -> StudioError:
    """Return the error of a project with the id of another one."""
    return StudioError(
        f"Project {project_id} at {client.url} is not the one whose votes are in the tables",
        got=f"it was created at {created_at}, {known}",
        hint="put back the server's database, or delete this project in Label Studio: the next "
        "push makes one with an id of its own",
    )


def ensure_project(
    client: LabelStudioClient,
    *,
    title: str,
    wanted_votes: int,
    media_dir: Path,
    owner: str = "",
    avoid: Collection[int] = (),
    page: Page | ItemPage | None = None,
    round: int = 1,  # noqa: A002
) -> Project:
    """Return the project with this title, page, round and owner.

    Create it if missing.

    A new page makes a new project, because changing the page under votes would spoil them.

    Args:
        wanted_votes: annotations after which the server closes a task; may be raised later.
        media_dir: holds ``crops`` and ``contexts`` and receives the drawings of the guide. The
            server must be allowed to serve it, unless it reads from a bucket.
        owner: secret of the home; only its hash is stored, to tell homes on a server apart.
        avoid: ids that a new project must not get, because tables already refer to them.
        page: questions; the eight expressions by default.

    Raises:
        StudioError: the server rejects a request, cannot read the media, or the labeling
            config was edited by hand.
    """
    page = page or Page()
    config, asked = _config(page)
    tag = _Tag(asked, _owner_hash(owner, title), round)
    found = _find(client, tag)
    if found is None:
        found = _create(client, _settings(title, tag, config=config, page=page), tag, avoid=avoid)
    elif fingerprint(found.label_config or "") != fingerprint(config):
        raise StudioError(
            f"The labeling config of project {found.id} at {client.url} was edited by hand",
            got="new faces would be asked another question",
            hint="run `risorius label push --restore-config` to put it back, or remove the tag "
            f"{tag} from the project's description to leave it alone and get a new project",
        )
    if found.maximum_annotations != wanted_votes:
        # Separate from creation, so that the next run repairs a lost answer to either.
        client.sdk.projects.update(found.id, maximum_annotations=wanted_votes)
    guide.write_drawings(media_dir)
    if isinstance(client.media, Folder):
        more = ITEM_FOLDERS if isinstance(page, ItemPage) else (CLIPS,) if page.clip else ()
        folders = (*_FOLDERS, *more)
        unlock_folders(client, found.id, media_dir, folders)
    sync_storage(client, found.id, owner=owner)
    return _project(client, found, config, tag)


def find(workspace: Workspace, client: LabelStudioClient, titles: Collection[str]) -> list[Project]:
    """Return the home's projects with these titles, by id.

    Projects of every page and round are included.
    """
    wanted = {_owner_hash(workspace.home.salt(), title) for title in titles}
    tags = {row.id: _read_tag(row.description or "") for row in _rows(client)}
    mine = {number: tag for number, tag in tags.items() if tag and tag.owner in wanted}
    return [
        _project(client, row, row.label_config or "", mine[row.id])
        for row in _with_configs(client, sorted(mine))
    ]


def restore_configs(
    workspace: Workspace, client: LabelStudioClient, projects: Collection[Project]
) -> list[int]:
    """Restore labeling configs edited by hand.

    Return the ids of restored projects.

    A config is restored if the options still ask the same. Every task gets the present address
    of its media, in projects of former pages too.

    Raises:
        StudioError: the server rejects a config because votes exist that do not fit it.
    """
    configs = {}
    for clip in (False, True):
        page = workspace.page(clip=clip)
        configs[page_fingerprint(page)] = labeling_config(page)
    for project in projects:
        sync_storage(client, project.id, owner=workspace.home.salt())
        update_addresses(client, project.id)
    edited = [project for project in projects if project.edited and project.page in configs]
    for project in edited:
        client.sdk.projects.update(project.id, label_config=configs[project.page])
    return [project.id for project in edited]


def check_media(workspace: Workspace, bucket: Bucket) -> tuple[str, str, str | None]:
    """Check that the server shows pictures of the bucket and nothing else.

    Starts no server.

    Returns:
        State (``ok``, ``note``, ``wrong``), finding and hint.
    """
    place = bucket.address("")
    how = "by signed addresses" if bucket.presign else "through Label Studio"
    if workspace.status() is None:
        return "note", f"{place}, {how}", "start Label Studio to have it tried"
    with workspace.connect() as client:
        mine = find(workspace, client, [workspace.options.project])
        if not mine:
            return "note", f"{place}, {how}; no project yet", "make one with risorius label push"
        workspace.home.salt()
        picture = f"{guide.FOLDER}/neutral.svg"
        problem, hint = check_bucket(client, mine[-1].id, picture=picture, outside=SALT)
    return ("wrong", f"{place}; {problem}", hint) if problem else ("ok", f"{place}, {how}", None)


def submit_with_enter(client: LabelStudioClient) -> None:
    """Let the client's own account submit with a plain Enter."""
    client.sdk.users.update_hotkeys(custom_hotkeys=_ENTER)


@dataclass(frozen=True)
class _Tag:
    """Purpose of a project: page fingerprint, hash of its owner, round."""

    page: str
    owner: str
    round: int = 1

    def __str__(self) -> str:
        rounds = f" round {self.round}" if self.round > 1 else ""
        return f"[risorius {self.page} {self.owner}{rounds}]"


def _read_tag(description: str) -> _Tag | None:
    found = _TAG.search(description)
    return _Tag(found[1], found[2], int(found[3] or 1)) if found else None


def _owner_hash(owner: str, title: str) -> str:
    return sha256_of([owner.encode(), title.encode()])[:8]


def _rows(client: LabelStudioClient) -> Iterator[Any]:
    for page in range(1, 1000):
        answer = client.sdk.projects.list(
            page=page, page_size=100, include="id,description,maximum_annotations"
        )
        yield from answer.items or []
        if not answer.response or not answer.response.next:
            return


def _with_configs(client: LabelStudioClient, numbers: list[int]) -> list[Any]:
    """Return projects with their configs by id.

    Configs are too long to list for all.
    """
    found: list[Any] = []
    for start in range(0, len(numbers), 100):
        answer = client.sdk.projects.list(
            ids=",".join(map(str, numbers[start : start + 100])), page_size=100,
            include="id,label_config,maximum_annotations,created_at",
        )  # fmt: skip
        found += answer.items or []
    return sorted(found, key=lambda row: row.id)


def _find(client: LabelStudioClient, tag: _Tag) -> Any:
    """Return the oldest project with this tag.

    Two processes may have made two at once.
    """
    found = [row for row in _rows(client) if str(tag) in (row.description or "")]
    oldest = min((row.id for row in found), default=None)
    return next(iter(_with_configs(client, [oldest])), None) if oldest is not None else None


def _project(client: LabelStudioClient, row: Any, config: str, tag: _Tag) -> Project:
    fits = tag.page in (fingerprint(config), fingerprint(config + PREDICTIONS_SHOWN))
    return Project(
        id=row.id,
        url=f"{client.url}/projects/{row.id}/data",
        round=tag.round,
        page=tag.page,
        edited=not fits,
        label_set=label_set_of(config),
        created_at=row.created_at,
    )


def _create(
    client: LabelStudioClient, body: dict[str, Any], tag: _Tag, *, avoid: Collection[int]
) -> Any:
    made = client.sdk.projects.create(**body)
    while made.id in avoid:
        # A new database counts from 1 again; an id in our tables must keep one meaning.
        client.sdk.projects.delete(made.id)
        made = client.sdk.projects.create(**body)
    return _find(client, tag) or made


def _config(page: Page | ItemPage) -> tuple[str, str]:
    """Return the labeling config of a page and its fingerprint."""
    if isinstance(page, ItemPage):
        return item_config(page), item_fingerprint(page)
    return labeling_config(page), page_fingerprint(page)


def _settings(title: str, tag: _Tag, *, config: str, page: Page | ItemPage) -> dict[str, Any]:
    item, instruction = "face", ""
    if isinstance(page, ItemPage):
        item, instruction = page.item_kind, page.instruction
    else:
        instruction = guide.instruction(page)
    return {
        "title": f"{title[:42]} {tag.round}" if tag.round > 1 else title,
        "description": f"Facial expressions, several votes per {item}. {tag}",
        "label_config": config,
        "expert_instruction": instruction,
        "show_instruction": True,
        "show_skip_button": True,
        "enable_empty_annotation": False,
        "show_annotation_history": False,
        "show_collab_predictions": page.predictions,
        # The server shows predictions of one named model only.
        "model_version": MODEL_VERSION if page.predictions else "",
        # Another order for every annotator, so that fatigue does not fall on the same faces.
        "sampling": "Uniform sampling",
        "skip_queue": "REQUEUE_FOR_OTHERS",
    }
