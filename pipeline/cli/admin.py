"""Commands that keep a home: backup, restore, migrate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.context import Session, command


def register(app: typer.Typer) -> None:
    command(app, "backup")(backup)
    command(app, "restore")(restore)
    command(app, "migrate")(migrate)


def backup(
    session: Session, file: Annotated[Path, typer.Argument(help="The tar file to write.")]
) -> None:
    """Write the home into one file while everything goes on: tables, media, releases, votes.

    The file holds accounts and the salt of pseudonyms: keep it as you keep the home.
    """
    from warehouse.storage import backup as keeping

    home = session.home()
    done = keeping.backup(home, file)
    session.answer(
        {"file": str(file), **done._asdict()},
        lambda console: console.print(
            f"{file}: {done.files} files, {done.bytes / 1e6:.1f} MB of {home.root}"
        ),
    )


def restore(
    session: Session, file: Annotated[Path, typer.Argument(help="A file that backup wrote.")]
) -> None:
    """Make a home from a backup; every checksum is compared before it is in place."""
    from warehouse.storage import backup as keeping

    home = session.home()
    done = keeping.restore(file, home)
    session.answer(
        {"home": str(home.root), **done._asdict()},
        lambda console: console.print(f"{home.root}: {done.files} files, every checksum holds"),
    )


def migrate(session: Session) -> None:
    """Bring the tables of an older home up to this installation's schema. Back up first."""
    from functools import partial

    from pipeline import progress
    from warehouse.storage import migrations as migration

    with session.watching():
        done = migration.migrate(session.home(), progress=partial(progress.report, "migrate"))
    session.answer(
        done._asdict(),
        lambda console: console.print(
            f"schema {done.before} to {done.after}: {done.rewritten} files rewritten, "
            f"{done.current} were up to date"
        ),
    )
