"""The server of a home: its own on loopback, or one that the settings name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pipeline.settings import Settings
from pipeline.studio.media import source_of
from warehouse.errors import StudioError

if TYPE_CHECKING:
    from annotation.label_studio.client import Client
    from annotation.label_studio.server import Address


def address(settings: Settings, *, say: Callable[[str], None] | None = None) -> Address:
    """The server the settings name, else the home's own on loopback, started if need be.

    Raises:
        StudioError: it cannot be started, or URL and key do not come together.
    """
    from annotation.label_studio import server

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
    from annotation.label_studio import server

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
    from annotation.label_studio import server

    if settings.label_studio_url:
        raise StudioError(
            "a local Label Studio to stop",
            got=f"LABEL_STUDIO_URL={settings.label_studio_url}",
            hint="stop that server where it runs",
        )
    return server.down(settings.place.studio)


def login(settings: Settings) -> dict[str, str]:
    """How a person signs in to the home's own server; the password stays in its file."""
    from annotation.label_studio import server

    if settings.label_studio_url:
        return {"email": "your own account", "password_file": "-", "hint": "with your own account"}
    path = settings.place.studio / "credentials.json"
    hint = f"as {server.EMAIL}, password in {path}"
    return {"email": server.EMAIL, "password_file": str(path), "hint": hint}


@contextmanager
def client_of(settings: Settings) -> Iterator[Client]:
    """A client signed in to the home's server, which is started if need be.

    Raises:
        SettingsError: pictures are to come from a store, and the settings do not say how.
    """
    from annotation.label_studio.client import connect

    media = source_of(settings)
    with connect(address(settings), media=media) as client:
        yield client
