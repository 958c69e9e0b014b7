"""What every machine of a home in a bucket knows of its people: pseudonyms, no address, no token.

One object per person. Only for a server that the settings name: where each machine has a Label
Studio of its own, so it has people of its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pipeline.settings import Settings
from warehouse.storage import atomic, mirror


@dataclass(frozen=True)
class Entry:
    """One account of a server.

    Attributes:
        rater_id: the pseudonym; its file is named so.
        url, user_id: which server and which account of it, for one whose address it hides.
    """

    rater_id: str
    url: str
    user_id: int
    kind: str
    removed: bool = False
    subject: str | None = None


def entries(settings: Settings) -> list[Entry]:
    """Everybody of this server whom any machine made an account, by pseudonym."""
    folder = _folder(settings)
    if folder is None:
        return []
    mirror.sync(folder)
    found = [Entry(**json.loads(path.read_text())) for path in sorted(folder.glob("*.json"))]
    return [entry for entry in found if entry.url == url_of(settings)]


def share(settings: Settings, people: Iterable[Entry]) -> None:
    """Let every machine know of these; does nothing where people are this machine's alone.

    Who was removed stays removed, whatever an older copy of ``people.json`` says.
    """
    folder = _folder(settings)
    if folder is None:
        return
    known = {entry.rater_id: entry for entry in entries(settings)}
    for entry in people:
        before = known.get(entry.rater_id)
        now = replace(entry, removed=entry.removed or bool(before and before.removed))
        if now != before:
            path = folder / f"{entry.rater_id}.json"
            atomic.write_text(path, json.dumps(asdict(now), indent=1) + "\n")


def url_of(settings: Settings) -> str:
    """Of the server that the settings name, as entries have it; empty for the home's own."""
    return (settings.label_studio_url or "").rstrip("/")


def _folder(settings: Settings) -> Path | None:
    folder = settings.place.root / mirror.PEOPLE
    shared = settings.label_studio_url and mirror.url_of(settings.place.root)
    return folder if shared else None
