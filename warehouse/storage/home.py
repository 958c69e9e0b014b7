"""Layout of a data directory: tables, media, releases, server state."""

from __future__ import annotations

import os
import secrets
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from warehouse.errors import SettingsError
from warehouse.storage import mirror, object_store

_CLOCK_S = 300.0
"""Clocks of two machines may differ by less."""


@dataclass(frozen=True)
class Home:
    """Paths of a data directory; each folder is created at its first write."""

    root: Path

    @classmethod
    def at(cls, root: str | Path | Home | None = None) -> Home:
        """Return the data directory at ``root``, which need not exist.

        Args:
            root: folder, or URL of an object store (``s3://bucket/prefix``), which is mirrored in
                a local folder, see ``warehouse.storage.mirror``. Default: ``RISORIUS_HOME``, else
                ``./.risorius``.

        Raises:
            SettingsError: ``root`` is a file, or a URL that cannot be opened.
        """
        if isinstance(root, Home):
            return root
        if root is None:
            root = os.environ.get("RISORIUS_HOME") or ".risorius"
        if (url := object_store.url_of(str(root))) is not None:
            return cls(mirror.working_folder(url))
        path = Path(root).expanduser().absolute()
        if path.exists() and not path.is_dir():
            raise SettingsError(
                "The home is not a folder", got=f"the file {path}", hint="name a folder with --home"
            )
        return cls(path)

    def __reduce__(self) -> tuple[object, ...]:
        # Pickle the URL: the local folder of a mirror has another path on other machines.
        return (Home.at, (mirror.url_of(self.root) or self.root,))

    @property
    def inbox(self) -> Path:
        """Folder of ``inbox/<batch>/``; each new folder is ingested as a batch."""
        return self.root / "inbox"

    @property
    def tables(self) -> Path:
        return self.root / "tables"

    @property
    def media(self) -> Path:
        """Crops and contexts by hash; the only folder Label Studio may serve."""
        return self.root / "media"

    @property
    def releases(self) -> Path:
        return self.root / "releases"

    @property
    def cache(self) -> Path:
        """Copies for speed; may be deleted at any time, and every erasure does."""
        return self.root / "cache"

    @property
    def models(self) -> Path:
        """Model packs of this machine; not shared, as each user accepts the terms."""
        return self.root / "models"

    @property
    def studio(self) -> Path:
        """State of the local Label Studio: database, log, address, accounts."""
        return self.root / "label-studio"

    @property
    def dagster(self) -> Path:
        return self.root / "dagster"

    def clock_warning(self) -> str | None:
        """Return a sentence if the tables were written in the future."""
        folders = [self.tables, *self.tables.glob("*")] if self.tables.is_dir() else []
        newest = max((folder.stat().st_mtime for folder in folders), default=0.0)
        if newest < time.time() + _CLOCK_S:
            return None
        now, then = (
            datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M UTC")
            for moment in (time.time(), newest)
        )
        return (
            f"The clock of this machine is behind: it says {now}, the tables of {self.root} were "
            f"written at {then}. Set it; votes and releases carry its time"
        )

    def salt(self) -> str:
        """Return the secret for pseudonyms; create it at first use, mode 0600."""
        path = self.root / "salt"
        self.root.mkdir(parents=True, exist_ok=True)
        draft = self.root / f".salt-{secrets.token_hex(4)}"
        if not path.exists() and (shared := mirror.find(path)) is not None:
            shared.create_once(path, secrets.token_hex(16).encode())
        elif not path.exists():
            handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            os.write(handle, secrets.token_hex(16).encode())
            os.close(handle)
            try:
                # link, not replace: the first of two processes wins, and both read its salt.
                os.link(draft, path)
            except FileExistsError:
                pass
            finally:
                draft.unlink(missing_ok=True)
        return path.read_text()
