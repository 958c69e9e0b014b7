"""Whether anything moved in the projects of a home, asked for or told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.settings import Settings
from pipeline.studio.project import all_projects
from pipeline.studio.server import client_of
from warehouse.storage.home import Home

if TYPE_CHECKING:
    from annotation.label_studio.webhook import Bell


def last_change(settings: Settings) -> str | None:
    """When anything in any project last moved; None when nothing runs or nothing is there."""
    from annotation.label_studio import projects, server

    if not settings.label_studio_url and server.running(settings.place.studio) is None:
        return None
    with client_of(settings) as client:
        every = all_projects(settings, client)
        moments = [projects.last_change(client, found.id) for found in every]
    return max(filter(None, moments), default=None)


@contextmanager
def bell(settings: Settings) -> Iterator[Bell | None]:
    """Rings while the block runs when the home's own server says that something moved; each ring
    also touches the hint that the sensor looks at. None for a server that runs elsewhere."""
    from annotation.label_studio import webhook

    if settings.label_studio_url:
        yield None
        return
    with client_of(settings) as client:
        ring = hint_of(settings.place).touch

        def numbers() -> list[int]:
            return [found.id for found in all_projects(settings, client)]

        with webhook.listening(client, numbers, on_ring=ring) as made:
            yield made


def hint_of(home: Home) -> Path:
    """The file whose time stamp says when the server last called."""
    return home.studio / "hint"
