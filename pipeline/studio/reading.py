"""Whether a server that reads the home's bucket really shows pictures, and nothing else of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.settings import Settings
from pipeline.studio.project import projects
from pipeline.studio.server import client_of, status
from warehouse.storage.mirror import SALT

if TYPE_CHECKING:
    from annotation.label_studio.media import Bucket


def tried(settings: Settings, bucket: Bucket) -> tuple[str, str, str | None]:
    """State (``ok``, ``note``, ``wrong``), what was found and how to mend it; starts no server.

    A picture and the salt of the pseudonyms are asked for as a member would, a byte of each.
    """
    from annotation.label_studio.drawings import FOLDER
    from annotation.label_studio.reach import reach

    where = bucket.address("")
    how = "by signed addresses" if bucket.presign else "through Label Studio"
    if status(settings) is None:
        return "note", f"{where}, {how}", "start Label Studio to have it tried"
    with client_of(settings) as client:
        mine = projects(settings, client)
        if not mine:
            return "note", f"{where}, {how}; no project yet", "make one with risorius label push"
        settings.place.salt()
        found = reach(client, mine[-1].id, picture=f"{FOLDER}/neutral.svg", outside=SALT)
    if not found.registered:
        told = f"{where}; project {mine[-1].id} has no storage row for it"
        return "wrong", told, "run risorius label push, which makes it"
    if found.refusal:
        told = f"{where}; a picture comes back as {found.refusal}"
        return "wrong", told, "give Label Studio keys that may read media/: RISORIUS_STUDIO_S3_KEY"
    if found.beyond:
        told = f"{where}; any member of Label Studio gets the salt of the pseudonyms too"
        return "wrong", told, "limit the keys of Label Studio to media/, see SECURITY.md"
    if not found.shown:
        told = f"{where}; browsers may not show what they get from there"
        return (
            "wrong",
            told,
            (
                f"add a CORS rule to the bucket: GET from {client.url}; or set "
                "RISORIUS_STUDIO_S3_PRESIGN=false"
            ),
        )
    return "ok", f"{where}, {how}", None
