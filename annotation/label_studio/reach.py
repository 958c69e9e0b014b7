"""Whether pictures in a bucket really come back through the server, and what else would."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx

from annotation.label_studio.address import LOOPBACK
from annotation.label_studio.client import Client
from annotation.label_studio.media import Bucket
from annotation.label_studio.storages import media_rows

_ONE_BYTE = {"Range": "bytes=0-0"}


@dataclass(frozen=True)
class Reach:
    """What a member of a project gets, tried from this machine.

    Attributes:
        registered: the project has a storage row for the bucket.
        refusal: why a picture does not come back; empty when it does.
        shown: pages of the server may show what comes back: the bucket allows their origin.
        beyond: something outside of the media comes back as well.
    """

    registered: bool
    refusal: str
    shown: bool
    beyond: bool


def reach(client: Client, project_id: int, *, picture: str, outside: str) -> Reach:
    """Ask for a picture and for what is none of a member's business, a byte of each.

    Args:
        client: one whose media are in a bucket.
        picture: media key of a picture that is there.
        outside: key of an object of the home, beside ``media/``, that is there.

    Raises:
        StudioError: the server is away.
    """
    bucket = client.media
    assert isinstance(bucket, Bucket)
    if not media_rows(client, project_id):
        return Reach(registered=False, refusal="no storage row", shown=False, beyond=False)
    base = bucket.address("").removesuffix("media/")
    came = _asked(client, bucket, bucket.address(picture), project_id)
    other = _asked(client, bucket, base + outside, project_id)
    good = isinstance(came, httpx.Response) and came.is_success
    allowed = _allowed(came)
    return Reach(
        registered=True,
        refusal="" if good else _words(came),
        shown=good and (not bucket.presign or allowed in ("*", _origin(client.url))),
        beyond=isinstance(other, httpx.Response) and other.is_success,
    )


def _asked(
    client: Client, bucket: Bucket, address: str, project_id: int
) -> httpx.Response | httpx.TransportError:
    answer = client.fetch(bucket.resolving(address, project_id), **_ONE_BYTE)
    if not answer.is_redirect:
        return answer
    signed = answer.headers["Location"]
    local = urlsplit(signed).hostname in LOOPBACK
    try:
        return httpx.get(
            signed, headers=_ONE_BYTE | {"Origin": _origin(client.url)}, trust_env=not local,
            timeout=30,
        )  # fmt: skip
    except httpx.TransportError as error:
        return error


def _allowed(came: httpx.Response | httpx.TransportError) -> str | None:
    told = came.headers if isinstance(came, httpx.Response) else {}
    return told.get("Access-Control-Allow-Origin")


def _words(came: httpx.Response | httpx.TransportError) -> str:
    if isinstance(came, httpx.TransportError):
        return f"no answer of the store ({type(came).__name__})"
    return f"HTTP {came.status_code}"


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
