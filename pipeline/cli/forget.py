"""The command ``risorius forget``."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.context import Session, command

if TYPE_CHECKING:
    from rich.console import Console

    from warehouse.privacy.data_subject import DataSubject

app = typer.Typer()


@command(app, "forget")
def forget(
    session: Session,
    subject: Annotated[
        str | None, typer.Option("--subject", help="Id of the subject to erase.")
    ] = None,
    video: Annotated[str | None, typer.Option("--video", help="Id of the video to erase.")] = None,
    why: Annotated[
        str, typer.Option("--why", help="Reason, kept in the tombstone. Must not name the person.")
    ] = "asked to",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would be deleted.")] = False,
    hub: Annotated[
        bool, typer.Option("--hub", help="Only retry to delete withdrawn versions from Hubs.")
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Erase nothing: allow ingest of these files again.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Skip the confirmation.")] = False,
) -> None:
    """Erase a subject or a video from the whole home.

    Covers tables, media, Label Studio and every release. Affected releases are rewritten and
    their old versions withdrawn. The home is then searched for remaining data. Run the command
    again to continue an interrupted erasure. From then on ingest refuses the files, until
    --again allows them.
    """
    if hub:
        _withdraw(session)
        return
    if (subject is None) == (video is None):
        raise typer.BadParameter("give either --subject or --video")
    from warehouse.privacy import erase, tombstones

    settings = session.settings()
    kind, name = ("subject", subject) if subject is not None else ("video", video)
    assert name is not None
    if again:
        stone = tombstones.lift(settings.place, kind, name)
        session.answer(
            {"let_back_in": stone},
            lambda console: console.print(f"{stone} is lifted: ingest accepts these files again"),
        )
        return
    found = erase.plan(settings.place, kind, name)
    if dry_run:
        session.answer(_facts(found), lambda console: _show(found, console))
        return
    if not yes:
        _show(found, session.console)
        typer.confirm("Erase all of it permanently?", abort=True, err=True)
    from pipeline import erasure

    report = erasure.forget(settings, kind, name, why=why)
    facts = asdict(report) | {"proved": report.verification.complete}
    session.answer(facts, partial(erasure.show, report))


def _withdraw(session: Session) -> None:
    from pipeline import erasure

    outcome = erasure.withdraw(session.settings())
    lines = [f"{where}: {done}" for where, done in outcome.items()] or [
        "no withdrawn version is left on a Hub"
    ]
    session.answer(outcome, lambda console: console.print("\n".join(lines), markup=False))


def _facts(found: DataSubject) -> dict[str, object]:
    return {
        "kind": found.kind,
        "name": found.name,
        "faces": len(found.faces),
        "crops": len(found.crops),
        "videos": list(found.videos),
        "shared_videos": list(found.shared),
        "sources": list(found.sources),
    }


def _show(found: DataSubject, console: Console) -> None:
    for name, value in _facts(found).items():
        text = ", ".join(value) or "none" if isinstance(value, list) else value
        console.print(f"{name.replace('_', ' '):<14} {text}")
