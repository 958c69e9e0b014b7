"""Commands about people's labels: label push, pull, status."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.session import Session, command

if TYPE_CHECKING:
    from rich.console import Console

WatchOption = Annotated[bool, typer.Option("--watch", help="Go on every 30 seconds until Ctrl-C.")]
_PAUSE_S = 30


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="Faces to people, votes back.", no_args_is_help=True)
    app.add_typer(group, name="label")
    command(group, "push")(push)
    command(group, "pull")(pull)
    command(group, "status")(status)


def push(session: Session, watch: WatchOption = False) -> None:
    """Send queued faces to Label Studio; a face already there is not sent again."""
    _repeat(session, ("queue",), ("label_queue", "studio_tasks"), watch=watch)


def pull(session: Session, watch: WatchOption = False) -> None:
    """Fetch every vote, edit and deletion since the last pull, and make soft labels of them."""
    jobs = ("believe", "requeue")
    _repeat(session, jobs, ("annotations", "soft_labels", "label_queue"), watch=watch)


def status(session: Session) -> None:
    """How far labelling has come: faces, votes, who has voted how often, agreement."""
    from pipeline.labelling import progress_of

    facts = progress_of(session.home())
    session.answer(facts, partial(_show, facts))


def _show(facts: dict[str, Any], console: Console) -> None:
    for name, value in facts.items():
        console.print(f"{name:<36} {value}")


def _repeat(
    session: Session, jobs: tuple[str, ...], assets: tuple[str, ...], *, watch: bool
) -> None:
    from pipeline import runs

    home = session.home()
    while True:
        with session.watching():
            made = {
                asset: told for job in jobs for asset, told in runs.materialize(home, job).items()
            }
        facts = {
            f"{asset} {name.replace('dagster/row_count', 'rows')}": value
            for asset in assets
            for name, value in made.get(asset, {}).items()
            # Tables and pictures are for the Dagster page.
            if isinstance(value, int | str) and not str(value).startswith(("|", "!", "_"))
        }
        session.answer(facts, partial(_show, facts))
        if not watch:
            return
        time.sleep(_PAUSE_S)
