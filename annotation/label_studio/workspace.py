"""The Label Studio of a home.

Its server, its options, where it reads media from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from annotation.label_studio import server
from annotation.label_studio.client import EMAIL, Address, LabelStudioClient, connect, external
from annotation.label_studio.labeling_config import Page
from annotation.label_studio.media import Bucket, Folder, Source
from warehouse.errors import SettingsError, StudioError
from warehouse.storage import media, mirror
from warehouse.storage.home import Home

_SERVER_SETTING = "server"
_MEDIA = "media/"


@dataclass(frozen=True)
class LabelStudioOptions:
    """Options of Label Studio.

    They are named and defined as in ``pipeline.settings.Settings``.
    """

    project: str = "faces"
    wanted_votes: int = 5
    label_set: str = "expressions"
    ask_mood: bool = False
    ask_au: tuple[int, ...] = ()
    ask_compounds: bool = False
    ask_free_label: bool = False
    show_clips: bool = False
    show_predictions: bool = False
    project_cap: int = 20_000
    studio_postgres: str | None = field(default=None, repr=False)
    studio_port: int | None = None
    label_studio_url: str | None = None
    label_studio_api_key: str | None = field(default=None, repr=False)
    media_from: str | None = None
    studio_s3_key: str | None = field(default=None, repr=False)
    studio_s3_secret: str | None = field(default=None, repr=False)
    studio_s3_endpoint: str | None = None
    studio_s3_presign: bool = True


@dataclass(frozen=True)
class Workspace:
    """A home and the options of its Label Studio."""

    home: Home
    options: LabelStudioOptions = LabelStudioOptions()

    def page(self, *, clip: bool = False) -> Page:
        """Return the questions that the options ask.

        ``clip`` for faces with a video.

        Raises:
            SettingsError: unknown label set or action unit.
        """
        options = self.options
        return Page(
            label_set=options.label_set,
            mood=options.ask_mood,
            units=options.ask_au,
            compounds=options.ask_compounds,
            free_label=options.ask_free_label,
            clip=clip,
            predictions=options.show_predictions,
        )

    def address(self, *, progress: Callable[[str], None] | None = None) -> Address:
        """Return the server of the options, or start the home's own server.

        The home's own server listens on loopback.

        Raises:
            StudioError: the server does not start, or URL and token are not both given.
        """
        options = self.options
        if options.label_studio_url:
            named = external(options.label_studio_url, options.label_studio_api_key or "")
            if named.warning and progress:
                progress(named.warning)
            return named
        return server.up(
            self.home.studio,
            self.home.media,
            port=options.studio_port,
            postgres=options.studio_postgres,
            progress=progress,
        )

    @contextmanager
    def connect(self) -> Iterator[LabelStudioClient]:
        """Yield a client that is signed in; start the server if needed.

        Raises:
            SettingsError: media are to be read from a bucket and the options do not say how.
            StudioError: the server does not start, does not answer, or rejects the token.
        """
        source = self.media_source()
        with connect(self.address(), media=source) as client:
            yield client

    def status(self) -> str | None:
        """Return one line about the server, or None if it does not run."""
        if self.options.label_studio_url:
            with self.connect() as client:
                email = client.sdk.users.whoami().email
            return f"{self.options.label_studio_url}, signed in as {email}"
        found = server.status(self.home.studio)
        if found.state == "down":
            return None
        return f"{found.state} at {found.url} (process {found.pid})"

    def down(self) -> bool:
        """Stop the home's own server; return False if it did not run.

        Raises:
            StudioError: the options name a server that runs elsewhere.
        """
        if self.options.label_studio_url:
            raise StudioError(
                "There is no local Label Studio to stop",
                got=f"LABEL_STUDIO_URL={self.options.label_studio_url}",
                hint="stop that server where it runs",
            )
        return server.down(self.home.studio)

    def login(self) -> dict[str, str]:
        """Return how to sign in to the home's own server, without the password."""
        if self.options.label_studio_url:
            hint = "with your own account"
            return {"email": "your own account", "password_file": "-", "hint": hint}
        path = self.home.studio / "credentials.json"
        hint = f"as {EMAIL}, password in {path}"
        return {"email": EMAIL, "password_file": str(path), "hint": hint}

    @property
    def reads_bucket(self) -> bool:
        """Return whether the server reads media from the home's bucket.

        Asks no server.

        By default it does if both the server and the home are elsewhere.
        """
        if self.options.media_from is not None:
            return self.options.media_from == "store"
        url = mirror.url_of(self.home.root) or ""
        return bool(self.options.label_studio_url) and url.startswith(("s3://", "s3a://"))

    def media_source(self) -> Source:
        """Return where the server reads media from.

        The home's own keys are never given to the server: it signs whatever a member asks for,
        and those keys open the tables and the salt of the pseudonyms.

        Raises:
            SettingsError: the home is not on S3, or half of a pair of keys is missing.
        """
        if not self.reads_bucket:
            return Folder()
        shared = mirror.find(self.home.media)
        place = shared.objects.s3_location() if shared is not None else None
        if place is None:
            raise SettingsError(
                "RISORIUS_MEDIA_FROM=store needs a home at s3://…",
                got=str(self.home.root),
                hint="leave RISORIUS_MEDIA_FROM out, or move the home to a bucket",
            )
        options = self.options
        key, secret = (
            (options.studio_s3_key or "").strip(),
            (options.studio_s3_secret or "").strip(),
        )
        if bool(key) != bool(secret):
            raise SettingsError(
                "RISORIUS_STUDIO_S3_KEY and RISORIUS_STUDIO_S3_SECRET must be set together",
                got=f"{'a' if key else 'no'} key and {'a' if secret else 'no'} secret",
                hint="set both, or neither where Label Studio has a role of its own",
            )
        named = options.studio_s3_endpoint
        return Bucket(
            name=place.name,
            prefix=place.prefix + _MEDIA,
            endpoint=None if named == _SERVER_SETTING else named or place.endpoint,
            region=place.region,
            key=key,
            secret=secret,
            presign=options.studio_s3_presign,
        )

    def fetch_media(self, keys: Iterable[str | None]) -> None:
        """Download media, unless the server reads the bucket itself."""
        if not self.reads_bucket:
            media.ensure_local(self.home, keys)
