"""What the local server may give out: files that lie in the media folder, not links out of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from warehouse.errors import StudioError


def refuse_links(media_dir: Path) -> None:
    """Refuse a media folder that holds a link: the server would follow it wherever it leads.

    Reads names alone, about a second for a million pictures.

    Raises:
        StudioError: names the first link.
    """
    for link in _links(media_dir):
        raise StudioError(
            f"plain files and folders below {media_dir}",
            got=f"the link {link}, which Label Studio would follow",
            hint="put the file itself there; a link may stand for the media folder as a whole",
        )


def _links(folder: str | Path) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_symlink():
                yield entry.path
            elif entry.is_dir(follow_symlinks=False):
                yield from _links(entry.path)
