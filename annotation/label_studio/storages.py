"""What unlocks pictures for a project: storage rows of the server, and addresses that fit them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from annotation.label_studio.client import Client
from annotation.label_studio.media import Bucket, Folder, bases, moved, moved_guide
from warehouse.errors import StudioError
from warehouse.masking import mask

_SERVE_ONLY = "^$"
"""A file filter that matches nothing: the storage row unlocks serving and is never synced."""

_TITLE = "serve media of risorius"
_MINUTES = 15
"""How long a signed address holds: for a slow line, not for passing it on."""

_FEW = 10
_PLAIN = re.compile(r"[\w:/.?=%~+-]+")
"""What the server's own little parser of expressions leaves as it is."""

_LOCAL, _S3 = "/api/storages/localfiles/", "/api/storages/s3/"


def unlock_folders(client: Client, project_id: int, media_dir: Path, names: Iterable[str]) -> None:
    """A storage row per folder: without one the server answers 404 for its files.

    Raises:
        StudioError: the server may not serve files of that folder.
    """
    wanted = {str((media_dir / name).resolve()): name for name in names}
    rows = client.read(_LOCAL, project=project_id)
    for path in sorted(wanted.keys() - {str(row["path"]) for row in rows}):
        Path(path).mkdir(parents=True, exist_ok=True)
        body = {
            "project": project_id, "path": path, "title": f"serve {wanted[path]}",
            "use_blob_urls": True, "regex_filter": _SERVE_ONLY,
        }  # fmt: skip
        try:
            client.write("POST", _LOCAL, body)
        except StudioError as error:
            raise StudioError(
                f"a Label Studio that may serve {path}",
                got=error.got,
                hint="start it with LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true and the media "
                "folder of this home as LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT",
            ) from None


def follow(client: Client, project_id: int, *, owner: str) -> int:
    """Make a project show its pictures from ``client.media``; how many tasks were re-addressed.

    A bucket gets one storage row, mended when bucket, endpoint or keys change. Tasks that were
    pushed with other addresses get the new ones, their annotations stay; the row says when that
    is done, so a run that was killed is finished by the next one.

    Args:
        owner: a secret of the home, so that the row's note of its keys tells nobody anything.

    Raises:
        StudioError: the server refuses, or cannot read the bucket.
    """
    rows = media_rows(client, project_id)
    if isinstance(client.media, Folder):
        if not rows:
            return 0
        count = readdress(client, project_id)
        for row in rows:
            client.write("DELETE", f"{_S3}{row['id']}")
        return count
    done = _row(project_id, client.media, owner)
    if rows and _is(rows[0], done) and len(rows) == 1:
        return 0
    begun = done | {"description": f"{done['description']}, tasks not yet re-addressed"}
    keys = {
        "aws_access_key_id": client.media.key or None,
        "aws_secret_access_key": client.media.secret or None,
        "aws_session_token": None,
    }
    number = _write(client, rows, begun | keys, client.media)
    for row in rows[1:]:
        client.write("DELETE", f"{_S3}{row['id']}")
    count = readdress(client, project_id)
    client.write("PATCH", f"{_S3}{number}", {"description": done["description"]})
    return count


def media_rows(client: Client, project_id: int) -> list[dict[str, Any]]:
    """Our storage rows of buckets in a project, oldest first; one at most, but for races."""
    rows = client.read(_S3, project=project_id)
    return sorted((row for row in rows if row["title"] == _TITLE), key=lambda row: row["id"])


def readdress(client: Client, project_id: int) -> int:
    """Give tasks and guide the addresses of ``client.media``; how many tasks had others.

    Many at once where the server can: it takes a fifth of a second for one task, and a few
    seconds for thousands by an action that its pages call experimental.
    """
    stale = _elsewhere(client, project_id)
    count = len(stale)
    if count > _FEW:
        for name, old, new in sorted(
            {one for _, data in stale for one in bases(data, client.media)}
        ):
            _replace(client, project_id, name, old=old, new=new)
        stale = _elsewhere(client, project_id)
    for number, data in stale:
        body = {"data": data | moved(data, client.media)}
        client.write("PATCH", f"/api/tasks/{number}/", body)
    project = f"/api/projects/{project_id}/"
    guide = client.read(project)["expert_instruction"] or ""
    if (wanted := moved_guide(guide, client.media, project_id)) != guide:
        client.write("PATCH", project, {"expert_instruction": wanted})
    return count


def _elsewhere(client: Client, project_id: int) -> list[tuple[int, dict[str, Any]]]:
    tasks = client.tasks(project_id, include="id,data", task_only=True, page_size=1000)
    told = ((task["id"], task.get("data") or {}) for task in tasks)
    return [(number, data) for number, data in told if moved(data, client.media)]


def _replace(client: Client, project_id: int, name: str, *, old: str, new: str) -> None:
    """Replace text in one field of every task; what it leaves is mended one by one."""
    if not (_PLAIN.fullmatch(old) and _PLAIN.fullmatch(new)):
        return
    body = {
        "value_name": name, "value_type": "Expression", "value": f'replace("{old}","{new}")',
        "selectedItems": {"all": True, "excluded": []},
    }  # fmt: skip
    with suppress(StudioError):
        client.write("POST", f"/api/dm/actions?id=add_data_field&project={project_id}", body)


def _row(project_id: int, bucket: Bucket, owner: str) -> dict[str, Any]:
    keys = f"keys {bucket.keys_mark(owner)}" if bucket.key else "keys of the server's own"
    return {
        "project": project_id, "title": _TITLE, "description": keys,
        "bucket": bucket.name, "prefix": bucket.prefix,
        "s3_endpoint": bucket.endpoint, "region_name": bucket.region,
        "presign": bucket.presign, "presign_ttl": _MINUTES,
        "use_blob_urls": True, "regex_filter": _SERVE_ONLY, "synchronizable": False,
    }  # fmt: skip


def _is(row: dict[str, Any], wanted: dict[str, Any]) -> bool:
    # The server keeps an empty text for None here and there.
    return all((row.get(name) or None) == (value or None) for name, value in wanted.items())


def _write(client: Client, rows: list[dict[str, Any]], body: dict[str, Any], bucket: Bucket) -> int:
    """Make or mend the row, which the server tries at once; its id."""
    try:
        if rows:
            client.write("PATCH", f"{_S3}{rows[0]['id']}", body)
            return rows[0]["id"]
        return client.write("POST", _S3, body)["id"]
    except StudioError as error:
        where = f" at {bucket.endpoint}" if bucket.endpoint else ""
        keys = "the keys given to it" if bucket.key else "no keys but its own"
        raise StudioError(
            f"a Label Studio that can read {bucket.address('')}{where}, with {keys}",
            got=mask(error.got, bucket.key, bucket.secret),
            hint="give it keys that may list and read the media alone, as RISORIUS_STUDIO_S3_KEY "
            "and RISORIUS_STUDIO_S3_SECRET, or a role of its own; a store in a private network "
            "must be set where it runs (S3_ENDPOINT there, RISORIUS_STUDIO_S3_ENDPOINT=server "
            "here); or set RISORIUS_MEDIA_FROM=folder where it mounts this home",
        ) from None
