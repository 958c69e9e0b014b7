"""A home in a bucket whose Label Studio has no disk in common with it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.annotation.label_studio.access_proxy import AccessProxy, access_proxy
from tests.annotation.label_studio.conftest import Studio
from tests.annotation.label_studio.test_label_studio_projects import Office
from tests.object_store import BUCKET, KEYS, s3_server
from warehouse.storage import mirror
from warehouse.storage.home import Home

READER, SECRET = "READER0001", "a-secret-that-reads-media-only"


@dataclass(frozen=True)
class Far:
    """A home in a bucket and a server elsewhere.

    Attributes:
        proxy: the bucket as the server and browsers see it.
        given: settings of any machine.
        office: makes a queue of a number of faces.
    """

    home: Home
    proxy: AccessProxy
    prefix: str
    given: dict[str, Any]
    office: Callable[..., Office]


@pytest.fixture(scope="module")
def s3_url() -> Iterator[str]:
    with s3_server() as url:
        yield url


@contextmanager
def far_home(studio: Studio, url: str, folder: Path, title: str) -> Iterator[Far]:
    """Yield a home, a proxy of its bucket, and settings of the server.

    The settings name the server by its URL.
    """
    prefix = f"{title[:30]}-{time.time_ns()}"
    with access_proxy(url) as opened, pytest.MonkeyPatch.context() as shell:
        for name, value in (KEYS | {"AWS_ENDPOINT_URL": url}).items():
            shell.setenv(name, value)
        shell.setenv("RISORIUS_WORK", str(folder))
        opened.readers[READER] = f"{BUCKET}/{prefix}/media/"
        home = Home.at(f"s3://{BUCKET}/{prefix}")

        given_here = {
            "LABEL_STUDIO_URL": studio.address.url,
            "LABEL_STUDIO_API_KEY": studio.address.token,
            "studio_s3_key": READER,
            "studio_s3_secret": SECRET,
            "studio_s3_endpoint": opened.url,
        }

        def office(count: int, **given: Any) -> Office:
            return Office(Studio(home, studio.address), title, count, **(given_here | given))

        yield Far(home, opened, prefix, given_here, office)
    mirror._open.cache_clear()
