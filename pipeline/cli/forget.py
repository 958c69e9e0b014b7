"""The command by which a person leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.context import Session, command

if TYPE_CHECKING:
    from rich.console import Console

    from warehouse.privacy.data_subject import DataSubject


def register(app: typer.Typer) -> None:
    command(app, "forget")(forget)


def forget(
    session: Session,
    subject: Annotated[str | None, typer.Option("--subject", help="A subject's id.")] = None,
    video: Annotated[str | None, typer.Option("--video", help="A video's id.")] = None,
    why: Annotated[
        str, typer.Option("--why", help="Kept in the tombstone. Must not name the person.")
    ] = "asked to",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    hub: Annotated[
        bool, typer.Option("--hub", help="Only take withdrawn versions off the Hubs, once more.")
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Erase nothing: let ingest take their files again.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Erase a person or a video from tables, media, Label Studio and every release.

    Releases that held them are written anew without them and the old versions withdrawn. Stopped
    halfway, the same command goes on. At the end the whole home is searched for what is left.
    From then on ingest refuses their files, until --again says that they came back.
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
            lambda console: console.print(f"{stone} may come back: ingest takes their files again"),
        )
        return
    leaver = erase.plan(settings.place, kind, name)
    if dry_run:
        session.answer(_told(leaver), lambda console: _show(leaver, console))
        return
    if not yes:
        _show(leaver, session.console)
        typer.confirm("Erase all of it, for good?", abort=True, err=True)
    from pipeline import erasure

    done = erasure.forget(settings, kind, name, why=why)
    session.answer(done.facts, done.show)


def _withdraw(session: Session) -> None:
    from pipeline import erasure

    told = erasure.withdraw(session.settings())
    lines = [f"{where}: {done}" for where, done in told.items()] or ["nothing is left on a Hub"]
    session.answer(told, lambda console: console.print("\n".join(lines), markup=False))


def _told(leaver: DataSubject) -> dict[str, object]:
    return {
        "kind": leaver.kind,
        "name": leaver.name,
        "faces": len(leaver.faces),
        "crops": len(leaver.crops),
        "videos": list(leaver.videos),
        "shared_videos": list(leaver.shared),
        "sources": list(leaver.sources),
    }


def _show(leaver: DataSubject, console: Console) -> None:
    for what, value in _told(leaver).items():
        said = ", ".join(value) or "none" if isinstance(value, list) else value
        console.print(f"{what.replace('_', ' '):<14} {said}")
