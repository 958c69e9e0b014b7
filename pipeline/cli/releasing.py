"""Commands about releases: release create, list, show."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.session import Session, command

if TYPE_CHECKING:
    from rich.console import Console

NameArgument = Annotated[str | None, typer.Argument(help="Name of the dataset. Default: faces.")]
VersionOption = Annotated[str, typer.Option("--version", help="v1, v2, … or latest.")]


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="Immutable dataset versions.", no_args_is_help=True)
    app.add_typer(group, name="release")
    command(group, "create")(create)
    command(group, "list")(list_)
    command(group, "show")(show)


def create(
    session: Session,
    name: NameArgument = None,
    drop_flagged: Annotated[
        bool, typer.Option("--drop-flagged", help="Leave out what the audits flagged.")
    ] = False,
) -> None:
    """Write a new version of the dataset, unless nothing is new since the last one."""
    from pipeline import runs

    settings = session.settings(release=name, drop_flagged=drop_flagged)
    with session.watching():
        runs.materialize(settings.place, "audit")
        made = runs.materialize(settings.place, "cut_release")["release"]
    session.answer(
        made,
        lambda console: console.print(
            f"{made['name']} {made['version']}: {made['rows']} faces at {made['path']}"
            if made["created"]
            else f"nothing new since {made['name']} {made['version']}; it stays as it is"
        ),
    )


def list_(session: Session) -> None:
    """Every version of every dataset in this home."""
    from rich.table import Table

    from warehouse import releases

    found = releases.list_releases(session.home())

    def show(console: Console) -> None:
        if not found:
            console.print("no release yet; make one with risorius release create")
            return
        table = Table(box=None, pad_edge=False)
        for column in ("name", "version", "faces", "path"):
            table.add_column(column)
        for release in found:
            table.add_row(release.name, release.version, str(release.rows), str(release.path))
        console.print(table)

    session.answer([vars(release) for release in found], show)


def show(session: Session, name: NameArgument = None, version: VersionOption = "latest") -> None:
    """What one version holds: splits, counts per stage and reason, and whether it is intact."""
    from warehouse import releases

    settings = session.settings(release=name)
    facts = releases.show(settings.place, name=settings.release, version=version)
    session.answer(facts, partial(_print_facts, facts))


def _print_facts(facts: dict[str, Any], console: Console) -> None:
    from pipeline.intake import stage_table

    console.print(f"[bold]{facts['name']} v{facts['version']}[/]  {facts['rows']} faces")
    console.print(f"path      {facts['path']}")
    console.print(f"report    {facts['path']}/report.html")
    sizes = {name: size["rows"] for name, size in facts["splits"]["sizes"].items()}
    console.print(f"votes     {sizes.pop('votes', 0)}")
    console.print("splits    " + ", ".join(f"{split} {rows}" for split, rows in sizes.items()))
    console.print(f"raters    {', '.join(facts['facts'].get('machine_raters', []))}")
    console.print(f"intact    {'yes' if not facts['problems'] else '; '.join(facts['problems'])}")
    columns = ("stage", "verdict", "reason", "n")
    console.print(stage_table([tuple(row[name] for name in columns) for row in facts["counts"]]))
