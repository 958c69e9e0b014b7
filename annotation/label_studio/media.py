"""Show pictures and clips in Label Studio, from a folder or a bucket.

A task names a picture by an address. A storage row of the project unlocks that address. A
project whose media move gets a new row, and its tasks get new addresses.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

import httpx

from warehouse.errors import StudioError
from warehouse.ids import sha256_of
from warehouse.masking import mask

if TYPE_CHECKING:
    from annotation.label_studio.client import LabelStudioClient

FIELDS = ("crop", "context", "clip", "video", "sound", "picture")
"""Fields of a task's data that hold the address of a picture or clip."""

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_LOCAL = "/data/local-files/?d="
_IN_BUCKET = re.compile(r"s3://[^/]+/(?:.*/)?media/([^/]+/.+)")
_RESOLVE = "/resolve/?fileuri="
_IN_GUIDE = re.compile(
    r'(?<=src=")(?:/data/local-files/\?d=|/projects/\d+/resolve/\?fileuri=)[^"]+'
)

_SERVE_ONLY = "^$"
"""File filter that matches nothing: the storage row unlocks serving and is never synced."""

_TITLE = "serve media of risorius"
_PRESIGN_MINUTES = 15
_SINGLE_UPDATES = 10
"""Up to this many tasks are re-addressed one by one: 0.2 s each."""

_PLAIN = re.compile(r"[\w:/.?=%~+-]+")
"""Text that the server's expression parser passes through unchanged."""

_FIRST_BYTE = {"Range": "bytes=0-0"}


@dataclass(frozen=True)
class Folder:
    """The server reads files: the media folder of this home, or a mount of it."""

    def address(self, key: str) -> str:
        """Return the address of a media key in a task."""
        return _LOCAL + quote(key)

    def page_address(self, key: str, project_id: int) -> str:
        """Return the address of a media key on a project page, outside of a task."""
        return self.address(key)


@dataclass(frozen=True)
class Bucket:
    """The server reads objects of an S3 store.

    Attributes:
        name: name of the bucket.
        prefix: prefix of the media in it, with a trailing slash.
        endpoint: URL of the store; None for Amazon's own, or for the server's own setting.
        key, secret: credentials of the server; both empty if it has a role of its own.
        presign: browsers fetch from the store by signed addresses; otherwise the server
            passes the bytes on.
    """

    name: str
    prefix: str
    endpoint: str | None = None
    region: str | None = None
    key: str = field(default="", repr=False)
    secret: str = field(default="", repr=False)
    presign: bool = True

    def address(self, key: str) -> str:
        """Return the address of a media key in a task.

        The server does not unquote it.
        """
        return f"s3://{self.name}/{self.prefix}{key}"

    def page_address(self, key: str, project_id: int) -> str:
        """Return the address of a media key on a project page, outside of a task."""
        return self.resolve_path(self.address(key), project_id)

    def resolve_path(self, address: str, project_id: int) -> str:
        """Return the path by which a project member fetches an object."""
        encoded = base64.urlsafe_b64encode(address.encode()).decode()
        return f"/projects/{project_id}{_RESOLVE}{encoded}"

    def key_fingerprint(self, owner: str) -> str:
        """Return 12 hex digits that change with the keys.

        Meaningless without ``owner``.
        """
        return sha256_of([owner.encode(), self.key.encode(), self.secret.encode()])[:12]


Source = Folder | Bucket

FOLDER = Folder()


def is_loopback(url: str) -> bool:
    """Return whether a URL points at this machine."""
    return urlsplit(url).hostname in _LOOPBACK


def key_of(address: str) -> str | None:
    """Return the media key of an address of either kind.

    None for any other text.
    """
    if address.startswith(_LOCAL):
        return unquote(address.removeprefix(_LOCAL))
    found = _IN_BUCKET.fullmatch(address)
    return found[1] if found else None


def new_addresses(data: Mapping[str, Any], source: Source) -> dict[str, str]:
    """Return the fields of a task's data whose address changes.

    The values are the new addresses.
    """
    keys = {name: key_of(str(data[name])) for name in FIELDS if data.get(name)}
    wanted = {name: source.address(key) for name, key in keys.items() if key is not None}
    return {name: address for name, address in wanted.items() if address != data[name]}


def prefix_changes(data: Mapping[str, Any], source: Source) -> set[tuple[str, str, str]]:
    """Return (field, old prefix, new prefix) of each address that must change."""
    found = set()
    for name in new_addresses(data, source):
        key = key_of(str(data[name])) or ""
        old = str(data[name]).removesuffix(key)
        if old != data[name]:
            found.add((name, old, source.address("")))
    return found


def guide_for(html: str, source: Source, project_id: int) -> str:
    """Return the guide with its drawings addressed in ``source``.

    The text is unchanged.
    """

    def replace(found: re.Match[str]) -> str:
        address = found[0]
        if _RESOLVE in address:
            encoded = address.partition(_RESOLVE)[2]
            address = base64.urlsafe_b64decode(unquote(encoded)).decode()
        key = key_of(address)
        return source.page_address(key, project_id) if key else found[0]

    return _IN_GUIDE.sub(replace, html)


def unlock_folders(
    client: LabelStudioClient, project_id: int, media_dir: Path, names: Iterable[str]
) -> None:
    """Create a storage row per folder.

    Without one the server answers 404 for its files.

    Raises:
        StudioError: the server may not serve files of that folder.
    """
    storages = client.sdk.import_storage.local
    wanted = {str((media_dir / name).resolve()): name for name in names}
    known = {str(row.path) for row in storages.list(project=project_id)}
    for path in sorted(wanted.keys() - known):
        Path(path).mkdir(parents=True, exist_ok=True)
        try:
            storages.create(
                project=project_id, path=path, title=f"serve {wanted[path]}",
                use_blob_urls=True, regex_filter=_SERVE_ONLY,
            )  # fmt: skip
        except StudioError as error:
            raise StudioError(
                f"Label Studio may not serve {path}",
                got=error.got,
                hint="start it with LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true and the media "
                "folder of this home as LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT",
            ) from None


def sync_storage(client: LabelStudioClient, project_id: int, *, owner: str) -> int:
    """Make a project show its pictures from ``client.media``.

    A bucket gets one storage row, which is updated if bucket, endpoint or keys change. Tasks
    with other addresses get new ones; their annotations stay. The row's description records
    when that is done, so the next run finishes a killed one.

    Args:
        owner: secret of the home, so that the key fingerprint in the row reveals nothing.

    Returns:
        The number of tasks that got a new address.

    Raises:
        StudioError: the server rejects a request, or cannot read the bucket.
    """
    storages = client.sdk.import_storage.s3
    rows = media_rows(client, project_id)
    if isinstance(client.media, Folder):
        if not rows:
            return 0
        count = update_addresses(client, project_id)
        for row in rows:
            storages.delete(row.id)
        return count
    done = _row(project_id, client.media, owner)
    if len(rows) == 1 and _matches(rows[0], done):
        return 0
    begun = done | {"description": f"{done['description']}, tasks not yet re-addressed"}
    number = _write_row(client, rows, begun, client.media)
    for row in rows[1:]:
        storages.delete(row.id)
    count = update_addresses(client, project_id)
    storages.update(number, description=done["description"])
    return count


def media_rows(client: LabelStudioClient, project_id: int) -> list[Any]:
    """Return our bucket storage rows of a project, oldest first.

    Several only after races.
    """
    rows = client.sdk.import_storage.s3.list(project=project_id)
    return sorted((row for row in rows if row.title == _TITLE), key=lambda row: row.id)


def update_addresses(client: LabelStudioClient, project_id: int) -> int:
    """Give tasks and guide the addresses of ``client.media``.

    Return the number of tasks.

    Many tasks are updated in bulk by an action that the server's interface calls
    experimental: seconds for thousands of tasks.
    """
    stale = _stale_tasks(client, project_id)
    count = len(stale)
    if count > _SINGLE_UPDATES:
        changes = {change for _, data in stale for change in prefix_changes(data, client.media)}
        for name, old, new in sorted(changes):
            _replace_in_all(client, project_id, name, old=old, new=new)
        stale = _stale_tasks(client, project_id)
    for number, data in stale:
        client.sdk.tasks.update(str(number), data=data | new_addresses(data, client.media))
    guide = client.sdk.projects.get(project_id).expert_instruction or ""
    if (wanted := guide_for(guide, client.media, project_id)) != guide:
        client.sdk.projects.update(project_id, expert_instruction=wanted)
    return count


def check_bucket(
    client: LabelStudioClient, project_id: int, *, picture: str, outside: str
) -> tuple[str, str | None]:
    """Check that members get pictures of the bucket and nothing else.

    Return problem and hint.

    One byte of each object is fetched as a member would.

    Args:
        client: a client whose media are in a bucket.
        picture: media key of an existing picture.
        outside: key of an existing object of the home beside ``media/``.

    Returns:
        An empty problem and no hint if all is well.

    Raises:
        StudioError: the server is unreachable.
    """
    bucket = client.media
    assert isinstance(bucket, Bucket)
    if not media_rows(client, project_id):
        return (
            f"project {project_id} has no storage row for it",
            "run risorius label push, which makes it",
        )
    base = bucket.address("").removesuffix("media/")
    response = _fetch_as_member(client, bucket, bucket.address(picture), project_id)
    if isinstance(response, str) or not response.is_success:
        reason = response if isinstance(response, str) else f"HTTP {response.status_code}"
        return (
            f"a picture is answered with {reason}",
            "give Label Studio keys that may read media/: RISORIUS_STUDIO_S3_KEY",
        )
    other = _fetch_as_member(client, bucket, base + outside, project_id)
    if isinstance(other, httpx.Response) and other.is_success:
        return (
            "any member of Label Studio gets the salt of the pseudonyms too",
            "limit the keys of Label Studio to media/, see SECURITY.md",
        )
    allowed = response.headers.get("Access-Control-Allow-Origin")
    if bucket.presign and allowed not in ("*", _origin(client.url)):
        return (
            "browsers may not show pictures fetched from there",
            f"add a CORS rule to the bucket: GET from {client.url}; or set "
            "RISORIUS_STUDIO_S3_PRESIGN=false",
        )
    return "", None


def _stale_tasks(client: LabelStudioClient, project_id: int) -> list[tuple[int, dict[str, Any]]]:
    tasks = client.tasks(project_id, include="id,data", task_only=True, page_size=1000)
    rows = ((task["id"], task.get("data") or {}) for task in tasks)
    return [(number, data) for number, data in rows if new_addresses(data, client.media)]


def _replace_in_all(
    client: LabelStudioClient, project_id: int, name: str, *, old: str, new: str
) -> None:
    """Replace text in one field of every task.

    The caller updates what this leaves.
    """
    if not (_PLAIN.fullmatch(old) and _PLAIN.fullmatch(new)):
        return
    body = {
        "value_name": name, "value_type": "Expression", "value": f'replace("{old}","{new}")',
        "selectedItems": {"all": True, "excluded": []},
    }  # fmt: skip
    with suppress(StudioError):
        client.sdk.actions.create(
            id="add_data_field",
            project=project_id,
            request_options={"additional_body_parameters": body},
        )


def _row(project_id: int, bucket: Bucket, owner: str) -> dict[str, Any]:
    keys = f"keys {bucket.key_fingerprint(owner)}" if bucket.key else "keys of the server's own"
    return {
        "project": project_id, "title": _TITLE, "description": keys,
        "bucket": bucket.name, "prefix": bucket.prefix,
        "s3endpoint": bucket.endpoint, "region_name": bucket.region,
        "presign": bucket.presign, "presign_ttl": _PRESIGN_MINUTES,
        "use_blob_urls": True, "regex_filter": _SERVE_ONLY, "synchronizable": False,
    }  # fmt: skip


def _matches(row: Any, wanted: Mapping[str, Any]) -> bool:
    # The server returns an empty text for None in some fields.
    return all((getattr(row, name, None) or None) == (value or None)
               for name, value in wanted.items())  # fmt: skip


def _write_row(
    client: LabelStudioClient, rows: list[Any], body: dict[str, Any], bucket: Bucket
) -> int:
    """Create or update the row, which the server tries at once; return its id."""
    storages = client.sdk.import_storage.s3
    keys = {
        "aws_access_key_id": bucket.key or None,
        "aws_secret_access_key": bucket.secret or None,
        "aws_session_token": None,
    }
    try:
        if rows:
            storages.update(rows[0].id, **body, **keys)
            return rows[0].id
        return storages.create(**body, **keys).id or 0
    except StudioError as error:
        place = f" at {bucket.endpoint}" if bucket.endpoint else ""
        which = "the keys given to it" if bucket.key else "no keys but its own"
        raise StudioError(
            f"Label Studio cannot read {bucket.address('')}{place} with {which}",
            got=mask(error.got, bucket.key, bucket.secret),
            hint="give it keys that may list and read the media alone, as RISORIUS_STUDIO_S3_KEY "
            "and RISORIUS_STUDIO_S3_SECRET, or a role of its own; a store in a private network "
            "must be set where it runs (S3_ENDPOINT there, RISORIUS_STUDIO_S3_ENDPOINT=server "
            "here); or set RISORIUS_MEDIA_FROM=folder where it mounts this home",
        ) from None


def _fetch_as_member(
    client: LabelStudioClient, bucket: Bucket, address: str, project_id: int
) -> httpx.Response | str:
    """Fetch the first byte of an object.

    Return the response, or why there is none.
    """
    answer = client.fetch(bucket.resolve_path(address, project_id), **_FIRST_BYTE)
    if not answer.is_redirect:
        return answer
    signed = answer.headers["Location"]
    try:
        return httpx.get(
            signed, headers=_FIRST_BYTE | {"Origin": _origin(client.url)},
            trust_env=not is_loopback(signed), timeout=30,
        )  # fmt: skip
    except httpx.TransportError as error:
        return f"no answer of the store ({type(error).__name__})"


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
