"""One real Label Studio per session, and copies of its fresh database.

Tests that kill the server use the copies.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from annotation.label_studio import event_log, installation, projects, server, tasks, users
from annotation.label_studio.client import Address, LabelStudioClient
from annotation.label_studio.event_log import PullResult
from annotation.label_studio.tasks import PushResult
from annotation.label_studio.users import Account
from warehouse.storage import media
from warehouse.storage.home import Home


@dataclass(frozen=True)
class Studio:
    """A home whose server runs."""

    home: Home
    address: Address

    def up(self) -> Address:
        return server.up(self.home.studio, self.home.media)


@dataclass(frozen=True)
class Board:
    """A project of its own for one test, with faces that are not pushed yet."""

    client: LabelStudioClient
    id: int
    title: str
    faces: pl.DataFrame

    @property
    def face_ids(self) -> list[str]:
        return self.faces["face_id"].to_list()


def api(client: LabelStudioClient, method: str, path: str, body: Any = None, **params: Any) -> Any:
    """Send any request by the rules of the client; return its JSON."""
    given = {"json": body} if body is not None else {}
    http = client.sdk._client_wrapper.httpx_client
    response = http.request(path.lstrip("/"), method=method, params=params or None, **given)
    return response.json() if response.content else None


def push(
    client: LabelStudioClient, project_id: int, faces: pl.DataFrame, **given: Any
) -> PushResult:
    """Push to one project that exists."""
    return tasks.push(client, faces, lambda _: project_id, lock=str(project_id), **given)


@dataclass(frozen=True)
class Pulled(PullResult):
    """``events``: new rows of ``annotations``."""

    events: pl.DataFrame


def pull(
    client: LabelStudioClient, project_id: int, *, known: pl.DataFrame, **given: Any
) -> Pulled:
    """Pull for a table in memory: new events are returned, not written."""
    new = [known.clear()]
    found = event_log.pull(
        client, project_id, known=lambda: pl.concat([known, *new]).lazy(), append=new.append,
        **given,
    )  # fmt: skip
    return Pulled(**vars(found), events=pl.concat(new))


@pytest.fixture(scope="session")
def first_start(
    tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Iterator[tuple[Studio, Path]]:
    """The session's server, and a folder as it is right after the first start.

    The first start makes the database, which takes the server most of a minute; what it made is
    kept in pytest's cache for the next session, by the server's version."""
    home = Home.at(tmp_path_factory.mktemp("studio") / "home")
    kept = pytestconfig.cache.mkdir(f"label-studio-{installation.VERSION}") / "template"
    if kept.is_dir():
        shutil.copytree(kept, home.studio)
    with pytest.MonkeyPatch.context() as shell:
        # What the server would take for settings of its own.
        for name in ("DEBUG", "PORT", "HOST", "PASSWORD", "DJANGO_DB", "OTHER_PROGRAMS_SECRET"):
            shell.setenv(name, "17")
        address = server.up(home.studio, home.media)
    if not kept.is_dir():
        _keep(home, kept)
    try:
        yield Studio(home, address), kept
    finally:
        server.down(home.studio)


def _keep(home: Home, kept: Path) -> None:
    with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
        draft = Path(folder) / "template"
        (draft / "data").mkdir(parents=True)
        draft.chmod(0o700)
        shutil.copy(home.studio / "credentials.json", draft)
        shutil.copy(home.studio / "data" / ".env", draft / "data")
        with (
            closing(sqlite3.connect(home.studio / "data" / installation.DATABASE)) as live,
            closing(sqlite3.connect(draft / "data" / installation.DATABASE)) as copy,
        ):
            live.backup(copy)
        # Of two sessions at once the second finds the folder there.
        with suppress(OSError):
            draft.rename(kept)


@pytest.fixture(scope="session")
def studio(first_start: tuple[Studio, Path]) -> Studio:
    return first_start[0]


@pytest.fixture
def fresh_home(first_start: tuple[Studio, Path], tmp_path: Path) -> Iterator[Home]:
    """Return a home whose server was started once and is not running.

    It starts in seconds.
    """
    home = Home.at(tmp_path / "home")
    shutil.copytree(first_start[1], home.studio)
    try:
        yield home
    finally:
        server.down(home.studio)


@pytest.fixture
def client(studio: Studio) -> Iterator[LabelStudioClient]:
    with LabelStudioClient(studio.address, retry_for_s=5) as signed_in:
        yield signed_in


@pytest.fixture(scope="session")
def voters(studio: Studio) -> list[Account]:
    """Three people with accounts of their own."""
    with LabelStudioClient(studio.address) as signed_in:
        return [
            users.add(signed_in, studio.home, f"{name}@example.org")
            for name in ("ada", "ben", "cem")
        ]


@pytest.fixture
def board(
    studio: Studio, client: LabelStudioClient, request: pytest.FixtureRequest
) -> Callable[[int], Board]:
    """``board(n)``: a new project with ``n`` faces ready to be pushed."""

    def make(count: int) -> Board:
        title = request.node.name[-45:]
        made = projects.ensure_project(
            client, title=title, wanted_votes=3, media_dir=studio.home.media
        )
        return Board(client, made.id, title, faces(studio.home, count))

    return make


def faces(home: Home, count: int) -> pl.DataFrame:
    """``count`` faces, all showing the same drawn crop and context."""
    crop = media.store(home, "crops", drawn_face(224))
    frame = np.full((180, 320, 3), (90, 120, 150), np.uint8)
    frame[40:140, 60:160] = drawn_face(100)
    context = media.store(home, "contexts", frame)
    return pl.DataFrame(
        {
            "face_id": [f"drawn-0000-{number}" for number in range(count)],
            "crop": [crop] * count,
            "context": [context] * count,
            "reason": ["coverage"] * count,
        }
    )


def drawn_face(size: int) -> np.ndarray:
    """uint8[size, size, 3]: an oval with two eyes and a mouth."""
    y, x = np.mgrid[0:size, 0:size] / size - 0.5
    picture = np.full((size, size, 3), (200, 180, 160), np.uint8)
    picture[(x / 0.33) ** 2 + (y / 0.42) ** 2 < 1] = (228, 192, 162)
    for side in (-0.13, 0.13):
        picture[(x - side) ** 2 + (y + 0.08) ** 2 < 0.035**2] = (40, 40, 60)
    picture[((x / 0.15) ** 2 + ((y - 0.16) / 0.08) ** 2 < 1) & (y > 0.16)] = (150, 60, 60)
    return picture
