"""The folder that holds one Risorius: tables, media, releases and the servers' own state."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from warehouse.errors import SettingsError
from warehouse.storage import mirror, object_store


@dataclass(frozen=True)
class Home:
    """Layout of a home. Paths are made on first use, never at import."""

    root: Path

    @classmethod
    def at(cls, root: str | Path | Home | None = None) -> Home:
        """A home at ``root``, which need not exist yet.

        Without ``root`` it is what ``RISORIUS_HOME`` names, else ``./.risorius``. A URL
        (``s3://bucket/prefix``) is a home on an object store: its root is then the folder of this
        machine that mirrors it, see ``warehouse.storage.mirror``.

        Raises:
            SettingsError: ``root`` is a file, or a URL of no store that can be opened here.
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
                "a folder as home", got=f"the file {path}", hint="name another folder with --home"
            )
        return cls(path)

    def __reduce__(self) -> tuple[object, ...]:
        # On another machine a shared home lies elsewhere, so it travels as its URL.
        return (Home.at, (mirror.url_of(self.root) or self.root,))

    @property
    def inbox(self) -> Path:
        """``inbox/<batch>/``: a new folder here becomes a batch."""
        return self.root / "inbox"

    @property
    def tables(self) -> Path:
        return self.root / "tables"

    @property
    def media(self) -> Path:
        """Content-addressed crops and contexts; the only folder Label Studio may serve."""
        return self.root / "media"

    @property
    def releases(self) -> Path:
        return self.root / "releases"

    @property
    def cache(self) -> Path:
        """Copies made for speed; may be deleted at any time, and is when a person is forgotten."""
        return self.root / "cache"

    @property
    def models(self) -> Path:
        """Model packs added on this machine; never shared, because each user accepts the terms."""
        return self.root / "models"

    @property
    def studio(self) -> Path:
        """State of the local Label Studio: its database, log, address and accounts."""
        return self.root / "label-studio"

    @property
    def dagster(self) -> Path:
        return self.root / "dagster"

    def salt(self) -> str:
        """The home's own secret for rater pseudonyms, made once and readable by its owner only."""
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
                # link, not replace: of two processes the first wins and both read the same salt.
                os.link(draft, path)
            except FileExistsError:
                pass
            finally:
                draft.unlink(missing_ok=True)
        return path.read_text()
