"""The commands ``risorius models``: list, add, remove, evaluate."""

from __future__ import annotations

import sys
from pathlib import Path
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


@command(app, "evaluate")
def evaluate(
    session: Session,
    folder: Annotated[Path, typer.Argument(help="A folder shaped like DISFA or BP4D.")],
    form: Annotated[
        str, typer.Option("--format", help="auto, disfa or bp4d.", show_default=True)
    ] = "auto",
    rater: Annotated[
        str | None, typer.Option("--rater", help="Default: the rater of the settings.")
    ] = None,
    landmarks: Annotated[
        str | None,
        typer.Option(
            "--landmarks",
            help="package.module:function from a crop uint8[224,224,3] to 68 points or None: "
            "evaluates a reader from geometry as well.",
        ),
    ] = None,
    every: Annotated[int, typer.Option("--every", help="Read each n-th coded frame.")] = 1,
) -> None:
    """Compare a rater's action units with the codes of FACS coders.

    Reads codes and videos that you have; nothing of them enters the home but the readings, so that
    an interrupted run continues. Per unit: F1 with the threshold of the other subjects' folds, F1
    at 0.5, AUROC, ICC(3,1) and Pearson's r, with 95 % intervals over subjects.
    """
    from pipeline import unit_evaluation

    options = unit_evaluation.Options(
        format=form,
        rater=rater or session.settings().rater,
        landmarks=landmarks,
        every=every,
        cache=session.home().root / "cache" / "units",
    )
    with session.watching():
        found = unit_evaluation.evaluate(folder, options)
    session.answer(found, lambda console: _show_units(console, found))


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


def _show_units(console: Console, found: dict[str, Any]) -> None:
    from rich.table import Table

    console.print(
        f"{found['rater_id']}: {found['frames']:,} coded frames of {found['subjects']} subjects "
        f"({found['format']}), {found['no_face']:,} without a found face"
    )
    for failed in found["failed"]:
        console.print(f"left out: {failed}", style="yellow", markup=False)
    for title, key in (("rater", "units"), ("geometry", "geometric")):
        if key not in found:
            continue
        table = Table(title=title, box=None, padding=(0, 1, 0, 0), header_style="bold")
        for column in ("unit", "frames", "present", "F1", "F1@.5", "AUROC", "ICC", "Pearson"):
            table.add_column(column, justify="left" if column == "unit" else "right", no_wrap=True)
        for unit, row in found[key].items():
            numbers = (row["f1"], row["f1_half"], row["auroc"], row["icc"], row["pearson"])
            table.add_row(unit, f"{row['n']:,}", f"{row['base_rate']:.1%}", *map(_number, numbers))
        console.print(table)


def _number(value: Any) -> str:
    """Return a figure with its interval, short enough for eight columns."""
    if value is None:
        return "-"
    if not isinstance(value, dict):
        return f"{value:.2f}"
    interval = "" if value["low"] is None else f" {value['low']:.2f}-{value['high']:.2f}"
    return f"{value['value']:.2f}{interval}"
