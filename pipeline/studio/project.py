"""The projects of a home: one per page and round, found again or made."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import polars as pl

from pipeline.settings import Settings
from pipeline.studio.people import filmed, title_of
from pipeline.studio.server import client_of
from warehouse.storage import tables
from warehouse.storage.home import Home

if TYPE_CHECKING:
    from annotation.label_studio.client import Client
    from annotation.label_studio.page import Page
    from annotation.label_studio.projects import Project
    from annotation.label_studio.users import Person


def page_of(settings: Settings, *, clip: bool = False) -> Page:
    """What the settings ask of people; ``clip`` for faces that have a short video.

    Raises:
        SettingsError: they ask for something unknown.
    """
    from annotation.label_studio.page import Page

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
    from annotation.label_studio import projects as project

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


def _projects(settings: Settings, client: Client, titles: list[str]) -> list[Project]:
    from annotation.label_studio import projects as project

    return project.find_projects(client, titles=titles, owner=settings.place.salt())


def restore_configs(settings: Settings) -> list[int]:
    """Put back labeling configs edited by hand, as far as the settings still ask the same.

    Also gives every task that shows its pictures from elsewhere than the settings say, in
    projects of pages that are asked no more too, the address that they have now.

    Raises:
        StudioError: the server refuses, because votes exist that the config has no place for.
    """
    from annotation.label_studio import projects as project
    from annotation.label_studio import storages

    with client_of(settings) as client:
        every = all_projects(settings, client)
        for found in every:
            storages.follow(client, found.id, owner=settings.place.salt())
            storages.readdress(client, found.id)
        edited = [found for found in every if found.edited]
        pages = [page_of(settings, clip=clip) for clip in (False, True)]
        return [
            found.id
            for found in edited
            if any(project.restore_config(client, found, page) for page in pages)
        ]


def _known_projects(home: Home) -> list[int]:
    seen = tables.scan(home, "annotations").select(pl.col("project_id").unique()).collect()
    return seen["project_id"].drop_nulls().to_list()
