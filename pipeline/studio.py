"""The Label Studio of a home: where it is, its project, its people."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import polars as pl

from pipeline.settings import Settings
from warehouse import tables
from warehouse.errors import StudioError
from warehouse.home import Home
from warehouse.ids import pseudonym

if TYPE_CHECKING:
    from annotation.studio.client import Client
    from annotation.studio.people import Person
    from annotation.studio.project import Project
    from annotation.studio.pull import User
    from annotation.studio.server import Address


def address(settings: Settings, *, say: Callable[[str], None] | None = None) -> Address:
    """The server the settings name, else the home's own on loopback, started if need be.

    Raises:
        StudioError: it cannot be started, or URL and key do not come together.
    """
    from annotation.studio import server

    if settings.label_studio_url:
        key = settings.label_studio_api_key
        return server.external(settings.label_studio_url, key.get_secret_value() if key else "")
    home = settings.place
    return server.up(home.studio, home.media, port=settings.studio_port, say=say)


def status(settings: Settings) -> str | None:
    """One line about the server; None when it does not run."""
    from annotation.studio import server

    if settings.label_studio_url:
        with _client(settings) as client:
            return f"{settings.label_studio_url}, signed in as {client.whoami()['email']}"
    found = server.status(settings.place.studio)
    return None if found.state == "down" else f"{found.state} at {found.url} (process {found.pid})"


def down(settings: Settings) -> bool:
    """Stop the home's own server; False when it did not run.

    Raises:
        StudioError: the settings name a server that is not ours to stop.
    """
    from annotation.studio import server

    if settings.label_studio_url:
        raise StudioError(
            "a local Label Studio to stop",
            got=f"LABEL_STUDIO_URL={settings.label_studio_url}",
            mend="stop that server where it runs",
        )
    return server.down(settings.place.studio)


def login(settings: Settings) -> dict[str, str]:
    """How a person signs in to the home's own server; the password stays in its file."""
    from annotation.studio import server

    if settings.label_studio_url:
        return {"email": "your own account", "password_file": "-", "hint": "with your own account"}
    path = settings.place.studio / "credentials.json"
    hint = f"as {server.EMAIL}, password in {path}"
    return {"email": server.EMAIL, "password_file": str(path), "hint": hint}


@contextmanager
def session(settings: Settings) -> Iterator[tuple[Client, Project]]:
    """A signed-in client and this home's project, made on first use."""
    from annotation.studio import project

    home = settings.place
    with _client(settings) as client:
        yield (
            client,
            project.ensure_project(
                client,
                title=settings.project,
                wanted_votes=settings.wanted_votes,
                media_dir=home.media,
                owner=home.salt(),
                avoid=_known_projects(home),
            ),
        )


def rater_of(settings: Settings) -> Callable[[User], tuple[str, str]]:
    """From an account to the pseudonym and kind that tables and releases show."""
    from annotation.studio import people

    home = settings.place
    return people.rater_of(home.studio, salt=home.salt())


def simulate(settings: Settings, *, count: int, say: Callable[[int, int], None]) -> int:
    """Let ``count`` simulated raters see every face of the project; return how many votes are new.

    They lean on the machine rater's reading of a face, each with an own bias and carelessness.
    """
    from annotation.raters import simulated

    with session(settings) as (client, found):
        voted = simulated.simulate(
            client,
            settings.place.studio,
            found.id,
            _sharpened(simulated.truth_of(tables.read(settings.place, "ratings"))),
            raters=simulated.panel(count),
            wanted_votes=settings.wanted_votes,
            progress=say,
        )
    return voted.new


def _sharpened(truth: dict[str, tuple[float, ...]]) -> dict[str, list[float]]:
    # A rater trained on votes tells the spread of a crowd and of its own doubt together; drawing
    # from that as it is gives a panel far less at one than people are (FER+: alpha 0.51).
    powers = {face: [share**2 for share in shares] for face, shares in truth.items()}
    return {face: [value / sum(shares) for value in shares] for face, shares in powers.items()}


def add_person(settings: Settings, email: str) -> dict[str, str]:
    """Give somebody an account; what they need to sign in lies in ``password_file``."""
    from annotation.studio import people

    studio = settings.place.studio
    with _client(settings) as client:
        made = people.add(client, studio, email)
    return _shown(settings, made) | {"password_file": str(studio / "people.json")}


def list_people(settings: Settings) -> list[dict[str, str]]:
    """Everybody with an account of this home, by e-mail, with their pseudonym."""
    from annotation.studio import people

    return [_shown(settings, person) for person in people.list_people(settings.place.studio)]


def remove_person(settings: Settings, email: str) -> bool:
    """End somebody's token and membership; False when there is no such account."""
    from annotation.studio import people

    with _client(settings) as client:
        return people.remove(client, settings.place.studio, email)


def _shown(settings: Settings, person: Person) -> dict[str, str]:
    return {
        "email": person.email,
        "rater_id": pseudonym(person.kind, settings.place.salt(), person.email),
        "kind": person.kind,
        "state": "removed" if person.removed else "active",
    }


def last_change(settings: Settings) -> str | None:
    """When anything in the project last moved; None when nothing runs or nothing is there."""
    from annotation.studio import project, server

    if not settings.label_studio_url and server.running(settings.place.studio) is None:
        return None
    with session(settings) as (client, found):
        return project.last_change(client, found.id)


@contextmanager
def _client(settings: Settings) -> Iterator[Client]:
    from annotation.studio.client import connect

    with connect(address(settings)) as client:
        yield client


def _known_projects(home: Home) -> list[int]:
    seen = tables.scan(home, "annotations").select(pl.col("project_id").unique()).collect()
    return seen["project_id"].drop_nulls().to_list()
