"""The Label Studio of a home: where it is, its project, its people."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from pipeline.settings import Settings
from warehouse import tables
from warehouse.errors import StudioError
from warehouse.home import Home
from warehouse.ids import pseudonym

if TYPE_CHECKING:
    from annotation.studio.client import Client
    from annotation.studio.hints import Bell
    from annotation.studio.page import Page
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
        named = server.external(settings.label_studio_url, key.get_secret_value() if key else "")
        if say is not None and named.warning:
            say(named.warning)
        return named
    home = settings.place
    database = settings.studio_postgres
    return server.up(
        home.studio,
        home.media,
        port=settings.studio_port,
        postgres=database.get_secret_value() if database else None,
        say=say,
    )


def status(settings: Settings) -> str | None:
    """One line about the server; None when it does not run."""
    from annotation.studio import server

    if settings.label_studio_url:
        with client_of(settings) as client:
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
def client_of(settings: Settings) -> Iterator[Client]:
    """A client signed in to the home's server, which is started if need be."""
    from annotation.studio.client import connect

    with connect(address(settings)) as client:
        yield client


def page_of(settings: Settings, *, clip: bool = False) -> Page:
    """What the settings ask of people; ``clip`` for faces that have a short video.

    Raises:
        SettingsError: they ask for something unknown.
    """
    from annotation.studio.page import Page

    return Page(
        label_set=settings.label_set,
        mood=settings.ask_mood,
        units=settings.ask_au,
        compounds=settings.ask_compounds,
        free_label=settings.ask_free_label,
        clip=clip,
        predictions=settings.show_predictions,
    )


@contextmanager
def session(settings: Settings) -> Iterator[tuple[Client, Project]]:
    """A signed-in client and this home's first project for what is asked now, made on first use."""
    with client_of(settings) as client:
        yield client, ensure(settings, client)


def ensure(
    settings: Settings,
    client: Client,
    *,
    page: Page | None = None,
    round: int = 1,  # noqa: A002
    title: str | None = None,
    votes: int | None = None,
) -> Project:
    """The home's project of a page and round, made when missing.

    Args:
        title, votes: of a filmed person's project; the settings' own by default.

    Raises:
        StudioError: the server refuses, or somebody changed the labeling config by hand.
    """
    from annotation.studio import project

    home = settings.place
    return project.ensure_project(
        client,
        title=title or settings.project,
        wanted_votes=votes or settings.wanted_votes,
        media_dir=home.media,
        owner=home.salt(),
        avoid=_known_projects(home),
        page=page or page_of(settings),
        round=round,
    )


def projects(settings: Settings, client: Client, *, person: Person | None = None) -> list[Project]:
    """The projects that observers, or one filmed person, are served from: by id, of every page and
    round there ever was."""
    title = title_of(settings, person) if person else settings.project
    return _projects(settings, client, [title])


def all_projects(settings: Settings, client: Client) -> list[Project]:
    """Every project of this home on the server, by id."""
    own = [title_of(settings, person) for person in filmed(settings, removed=True)]
    return _projects(settings, client, [settings.project, *own])


def filmed(settings: Settings, *, removed: bool = False) -> list[Person]:
    """The filmed people, by e-mail; with ``removed`` those too who may vote no more."""
    from annotation.studio import people

    return [
        person
        for person in people.list_people(settings.place.studio)
        if person.kind == "self" and (removed or not person.removed)
    ]


def title_of(settings: Settings, person: Person) -> str:
    """The title of a filmed person's project."""
    return f"{settings.project[:36]} {pseudonym_of(settings, person)}"


def _projects(settings: Settings, client: Client, titles: list[str]) -> list[Project]:
    from annotation.studio import project

    return project.find_projects(client, titles=titles, owner=settings.place.salt())


def restore_configs(settings: Settings) -> list[int]:
    """Put back labeling configs edited by hand, as far as the settings still ask the same.

    Raises:
        StudioError: the server refuses, because votes exist that the config has no place for.
    """
    from annotation.studio import project

    with client_of(settings) as client:
        edited = [found for found in all_projects(settings, client) if found.edited]
        pages = [page_of(settings, clip=clip) for clip in (False, True)]
        return [
            found.id
            for found in edited
            if any(project.restore_config(client, found, page) for page in pages)
        ]


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


def add_person(settings: Settings, email: str, *, subject: str | None = None) -> dict[str, str]:
    """Give somebody an account; what they need to sign in lies in ``password_file``.

    Args:
        subject: of a filmed person, who then judges the faces of that subject and no others.
    """
    from annotation.studio import people

    studio, kind = settings.place.studio, "self" if subject else "person"
    with client_of(settings) as client:
        made = people.add(client, studio, email, kind=kind, subject=subject)
    return _shown(settings, made) | {"password_file": str(studio / "people.json")}


def list_people(settings: Settings) -> list[dict[str, str]]:
    """Everybody with an account of this home, by e-mail, with their pseudonym."""
    from annotation.studio import people

    return [_shown(settings, person) for person in people.list_people(settings.place.studio)]


def remove_person(settings: Settings, email: str) -> bool:
    """End somebody's token and membership; False when there is no such account."""
    from annotation.studio import people

    with client_of(settings) as client:
        return people.remove(client, settings.place.studio, email)


def pseudonym_of(settings: Settings, person: Person) -> str:
    """The name a person goes by in tables and releases."""
    return pseudonym(person.kind, settings.place.salt(), person.email)


def _shown(settings: Settings, person: Person) -> dict[str, str]:
    filmed = person.kind == "self"
    return {
        "email": person.email,
        "rater_id": pseudonym_of(settings, person),
        "kind": person.kind,
        "state": "removed" if person.removed else "active",
        **({"subject": person.subject or "none: add again with --subject"} if filmed else {}),
    }


def last_change(settings: Settings) -> str | None:
    """When anything in any project last moved; None when nothing runs or nothing is there."""
    from annotation.studio import project, server

    if not settings.label_studio_url and server.running(settings.place.studio) is None:
        return None
    with client_of(settings) as client:
        every = all_projects(settings, client)
        moments = [project.last_change(client, found.id) for found in every]
    return max(filter(None, moments), default=None)


@contextmanager
def bell(settings: Settings) -> Iterator[Bell | None]:
    """Rings while the block runs when the home's own server says that something moved; each ring
    also touches the hint that the sensor looks at. None for a server that runs elsewhere."""
    from annotation.studio import hints

    if settings.label_studio_url:
        yield None
        return
    with client_of(settings) as client:
        ring = hint_of(settings.place).touch

        def numbers() -> list[int]:
            return [found.id for found in all_projects(settings, client)]

        with hints.listening(client, numbers, on_ring=ring) as made:
            yield made


def hint_of(home: Home) -> Path:
    """The file whose time stamp says when the server last called."""
    return home.studio / "hint"


def _known_projects(home: Home) -> list[int]:
    seen = tables.scan(home, "annotations").select(pl.col("project_id").unique()).collect()
    return seen["project_id"].drop_nulls().to_list()
