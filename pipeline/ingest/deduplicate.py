"""The same bytes twice are one video."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.ingest import changed_files
from warehouse.storage import tables
from warehouse.storage.home import Home


class Copies:
    """Which files of the table ``videos`` speak of which bytes.

    Listed once and kept up to date by ``note``: a listing per source made the thousandth cost
    ten times the hundredth.
    """

    def __init__(self, home: Home) -> None:
        self.home = home
        self.places: dict[str, set[tuple[str, str]]] = {}
        for path in tables.paths(home, "videos"):
            self.note(path.parent.name.removeprefix("batch="), path.stem)

    def note(self, batch: str, part: str) -> None:
        """A row was written there; its file is named after its video."""
        self.places.setdefault(part.partition(".")[0], set()).add((batch, part))

    def kept_elsewhere(self, row: dict[str, Any]) -> str | None:
        """File and batch of the same bytes under another address, if they are there already.

        What is kept of a retired video elsewhere is removed: these bytes stand for it now.
        """
        found = None
        for batch, part in sorted(self.places.get(row["video_id"], ())):
            for other in tables.read_part(self.home, "videos", part=part, batch=batch).iter_rows(
                named=True
            ):
                reason = other["reason"] or ""
                same_place = other["uri"] == row["uri"] and other["batch"] == row["batch"]
                if same_place or reason.startswith("duplicate"):
                    continue
                if reason.startswith(f"{changed_files.REASON}:"):
                    changed_files.hand_over(
                        self.home, row["video_id"], batch=batch, to=row["batch"]
                    )
                else:
                    found = found or f"{Path(other['uri']).name} in batch {batch}"
        return found
