"""The commands ``risorius models``: list, add, remove."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.context import Session, command

if TYPE_CHECKING:
    from rich.console import Console

    from pipeline.models import Pack

app = typer.Typer(help="Manage model packs and their licences.", no_args_is_help=True)


@command(app, "list")
def list_(session: Session) -> None:
    """List shipped and added packs with purpose, licence and state."""
    from pipeline import models as packs

    found = packs.listed(session.home())
    facts = [_facts(pack) for pack in found]
    session.answer(facts, lambda console: _show(console, facts))


@command(app, "add")
def add(
    session: Session,
    source: Annotated[
        str,
        typer.Argument(
            help="A pack of InsightFace's model zoo (buffalo_l …), or an .onnx file, folder, "
            "ZIP archive or URL."
        ),
    ],
    name: Annotated[
        str | None, typer.Option("--name", help="Default: the name of the file.")
    ] = None,
    licence: Annotated[
        str | None,
        typer.Option("--licence", help="Licence of the weights; known for the model zoo."),
    ] = None,
    accept: Annotated[
        bool, typer.Option("--accept", help="Confirm that you have read the licence and accept it.")
    ] = False,
) -> None:
    """Add a model pack after you have read its licence.

    To use it, set for example RISORIUS_DETECTOR=buffalo_l. Weights of InsightFace's model zoo
    are for non-commercial research only, and every release they touch says so.
    """
    from pipeline import models as packs

    plan = packs.plan(source, name=name, licence=licence)
    if not accept and not (sys.stdin.isatty() and typer.confirm(f"{plan.question} Accept?")):
        plan.refuse()
    with session.watching():
        pack = packs.add(session.home(), plan)
    facts = _facts(pack)
    session.answer(facts, lambda console: _show(console, [facts]))


@command(app, "remove")
def remove(
    session: Session, name: Annotated[str, typer.Argument(help="As `models list` shows it.")]
) -> None:
    """Delete an added pack; faces found with it stay."""
    from pipeline import models as packs

    pack = packs.remove(session.home(), name)
    session.answer({"removed": pack.name}, lambda console: console.print(f"removed {pack.name}"))


def _facts(pack: Pack) -> dict[str, Any]:
    from pipeline import models as packs

    return {
        "name": pack.name,
        "licence": pack.licence,
        "tasks": pack.tasks,
        "shipped": pack.shipped,
        "source": pack.source,
        "added_at": pack.added_at,
        "damaged": packs.damaged(pack),
    }


def _show(console: Console, found: list[dict[str, Any]]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from pipeline import models as packs

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("pack", "what for", "licence", "from"):
        table.add_column(column, overflow="fold")
    for pack in found:
        use = ", ".join(sorted({packs.TASKS.get(task, task) for task in pack["tasks"].values()}))
        broken = pack["damaged"]
        table.add_row(
            pack["name"],
            f"[red]damaged: {escape(', '.join(broken))}[/red]" if broken else use,
            pack["licence"],
            "ships with Risorius" if pack["shipped"] else escape(pack["source"] or ""),
        )
    console.print(table)
