"""Where a home's Label Studio gets pictures and clips from: files, or the home's bucket."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pipeline.settings import Settings
from warehouse.errors import SettingsError
from warehouse.storage import media, mirror
from warehouse.storage.object_store import S3Location

if TYPE_CHECKING:
    from annotation.label_studio.media import Source

_AS_SET_THERE = "server"
_MEDIA = "media/"


def source_of(settings: Settings) -> Source:
    """The bucket when the settings say so, or say nothing and both server and home are elsewhere.

    Our own keys are never given to the server: it signs whatever a member asks for, and ours open
    the tables and the salt of the pseudonyms.

    Raises:
        SettingsError: the home is on no S3 store, or half of a pair of keys is missing.
    """
    from annotation.label_studio.media import Bucket, Folder

    if not from_store(settings):
        return Folder()
    place = _place(settings)
    if place is None:
        raise SettingsError(
            "a home at s3://… when RISORIUS_MEDIA_FROM=store",
            got=str(settings.home),
            hint="leave RISORIUS_MEDIA_FROM out, or move the home to a bucket",
        )
    pair = settings.studio_s3_key, settings.studio_s3_secret
    key, secret = (half.get_secret_value().strip() if half else "" for half in pair)
    if bool(key) != bool(secret):
        raise SettingsError(
            "RISORIUS_STUDIO_S3_KEY and RISORIUS_STUDIO_S3_SECRET together, or neither",
            got=f"{'a' if key else 'no'} key and {'a' if secret else 'no'} secret",
            hint="set both, or neither where Label Studio has a role of its own",
        )
    named = settings.studio_s3_endpoint
    return Bucket(
        name=place.name,
        prefix=place.prefix + _MEDIA,
        endpoint=None if named == _AS_SET_THERE else named or place.endpoint,
        region=place.region,
        key=key,
        secret=secret,
        presign=settings.studio_s3_presign,
    )


def from_store(settings: Settings) -> bool:
    """Whether the server reads the bucket; asks no server."""
    if settings.media_from is not None:
        return settings.media_from == "store"
    url = mirror.url_of(settings.place.root) or ""
    return bool(settings.label_studio_url) and url.startswith(("s3://", "s3a://"))


def bring(settings: Settings, keys: Iterable[str | None]) -> None:
    """Have these pictures where the server reads them; one that reads the bucket has them."""
    if not from_store(settings):
        media.ensure_local(settings.place, keys)


def _place(settings: Settings) -> S3Location | None:
    shared = mirror.find(settings.place.media)
    return shared.objects.s3_location() if shared is not None else None
