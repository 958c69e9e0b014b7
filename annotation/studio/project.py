"""One Label Studio project per question: found again or made, set up so that votes stay blind."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from annotation.studio.client import Client
from annotation.studio.config import fingerprint, labeling_config
from warehouse.errors import StudioError
from warehouse.ids import sha256_of
from warehouse.media import KINDS

_FOLDERS = tuple(KINDS)
_SERVE_ONLY = "^$"
"""A file filter that matches nothing: the storage row unlocks serving and is never synced."""

_RULES = (
    "<b>Say what the face in the large picture shows.</b> The picture below it only helps: the "
    "same face is marked there, in the frame it came from.",
    "<b>1</b> to <b>8</b> pick an expression, <b>Enter</b> submits (or Ctrl+Enter). The keys "
    "stand beside the words.",
    "Two expressions at once, or you waver between two? Pick both.",
    "None of them, or you cannot tell? <b>9</b>. That is an answer, not a failure.",
    "No face at all: <b>n</b>. A face too dark, blurred or hidden to judge: <b>u</b>.",
    "Trust your first impression. People disagree about faces, and we keep the disagreement.",
    "You would rather not judge this one? Skip it: others will see it.",
)
# The page strips styles and flattens lists; an empty line survives.
INSTRUCTION = "<br/><br/>".join(_RULES)

_ENTER = {
    "annotation:annotation:submit": {"key": "enter", "active": True},
    "annotation:annotation:update": {"key": "enter", "active": True},
}


@dataclass(frozen=True)
class Project:
    """A project on a server; ``url`` is its page."""

    id: int
    url: str


def ensure_project(
    client: Client,
    *,
    title: str,
    wanted_votes: int,
    media_dir: Path,
    owner: str = "",
    avoid: Collection[int] = (),
) -> Project:
    """The project with this title, labeling config and owner: found, else made.

    A project is recognised by a mark in its description, for titles are not unique: the config's
    hash (so a new config makes a new project; changing one under votes would spoil them) and the
    owner's.

    Args:
        wanted_votes: the stream offers a face until it has this many votes; may be raised later.
        media_dir: holds ``crops`` and ``contexts``; must be what the server may serve.
        owner: tells homes apart that share a server; any text, kept as a hash.
        avoid: ids not to take for a new project, because tables already know another one by them.

    Raises:
        StudioError: the server refuses, or may not serve the folder.
    """
    config = labeling_config()
    mark = f"risorius {fingerprint(config)} {sha256_of([owner.encode(), title.encode()])[:8]}"
    found = _find(client, mark)
    if found is None:
        found = _create(client, title=title, config=config, mark=mark, avoid=avoid)
    if found["maximum_annotations"] != wanted_votes:
        # Set apart from creation, so that a lost answer to either is mended by the next run.
        client.write(
            "PATCH", f"/api/projects/{found['id']}/", {"maximum_annotations": wanted_votes}
        )
    _unlock_media(client, found["id"], media_dir)
    return Project(id=found["id"], url=f"{client.url}/projects/{found['id']}/data")


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


def _find(client: Client, mark: str) -> dict[str, Any] | None:
    """Of several (two pipelines at the same moment) everybody takes the oldest."""
    found = []
    for page in range(1, 1000):
        answer = client.read(
            "/api/projects/", page=page, page_size=100, include="id,description,maximum_annotations"
        )
        found += [row for row in answer["results"] if mark in (row.get("description") or "")]
        if not answer.get("next"):
            break
    return min(found, key=lambda row: row["id"], default=None)


def _create(
    client: Client, *, title: str, config: str, mark: str, avoid: Collection[int]
) -> dict[str, Any]:
    made = client.write("POST", "/api/projects/", _settings(title, config, mark))
    while made["id"] in avoid:
        # A database made anew counts from 1 again; ids in our tables must keep one meaning.
        client.write("DELETE", f"/api/projects/{made['id']}/")
        made = client.write("POST", "/api/projects/", _settings(title, config, mark))
    return _find(client, mark) or made


def _settings(title: str, config: str, mark: str) -> dict[str, Any]:
    return {
        "title": title,
        "description": f"Facial expressions, several votes per face. [{mark}]",
        "label_config": config,
        "expert_instruction": INSTRUCTION,
        "show_instruction": True,
        "show_skip_button": True,
        "enable_empty_annotation": False,
        "show_annotation_history": False,
        "show_collab_predictions": False,
        # Every annotator gets an order of their own, so tiredness does not fall on the same faces.
        "sampling": "Uniform sampling",
        "skip_queue": "REQUEUE_FOR_OTHERS",
    }


def _unlock_media(client: Client, project_id: int, media_dir: Path) -> None:
    """A storage row per folder: without one the server answers 404 for its files."""
    wanted = {str((media_dir / folder).resolve()): folder for folder in _FOLDERS}
    rows = client.read("/api/storages/localfiles/", project=project_id)
    for path in sorted(wanted.keys() - {str(row["path"]) for row in rows}):
        Path(path).mkdir(parents=True, exist_ok=True)
        body = {
            "project": project_id, "path": path, "title": f"serve {wanted[path]}",
            "use_blob_urls": True, "regex_filter": _SERVE_ONLY,
        }  # fmt: skip
        try:
            client.write("POST", "/api/storages/localfiles/", body)
        except StudioError as error:
            raise StudioError(
                f"a Label Studio that may serve {path}",
                got=error.got,
                mend="start it with LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true and the media "
                "folder of this home as LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT",
            ) from None
