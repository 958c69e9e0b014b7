"""Commands ``sql``, ``doctor``, ``backup``, ``restore``, ``migrate``."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.context import Session, command

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer()


@command(app, "sql")
def sql(
    session: Session,
    query: Annotated[
        str, typer.Argument(help='For example "select verdict, count(*) from faces group by all".')
    ],
) -> None:
    """Query the tables in DuckDB's SQL.

    Every table of the home is a view, and so are current_votes, votes, stages and
    curated_faces. A query reads the tables and nothing else: no other file, no address.
    """
    import duckdb
    import polars as pl

    from warehouse.errors import SettingsError
    from warehouse.storage import views

    try:
        frame = views.query(session.home(), query)
    except duckdb.Error as error:
        raise SettingsError(
            "DuckDB rejects the query",
            got=views.reason(error),
            hint='list the tables with: risorius sql "show tables"',
        ) from None
    if session.json:
        print(frame.write_json())
        return
    with pl.Config(
        tbl_rows=1000, tbl_cols=-1, tbl_hide_dataframe_shape=True, tbl_hide_column_data_types=True,
        fmt_str_lengths=120, tbl_width_chars=200, tbl_formatting="UTF8_BORDERS_ONLY",
    ):  # fmt: skip
        print(frame if frame.height else "no rows")


@command(app, "doctor")
def doctor(
    session: Session,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read everything and compare every checksum.")
    ] = False,
    settings: Annotated[
        bool, typer.Option("--settings", help="List every setting, its value and its meaning.")
    ] = False,
) -> None:
    """Check installation, servers and settings; print each problem with a fix."""
    import sys

    from rich.markup import escape

    if settings:
        from pipeline.settings import describe

        found = describe(session.settings())
        rows = [
            (one.variable, f"[bold]{escape(one.value)}[/]" if one.moved else escape(one.value),
             escape(one.meaning))
            for one in found
        ]  # fmt: skip
        document = [vars(one) for one in found]
        session.answer(document, partial(_table, ("variable", "value", "meaning"), rows))
        return
    from pipeline.doctor import examine

    findings = examine(session.settings(), verify=verify)
    colours = {"ok": "green", "note": "yellow", "wrong": "red"}
    lines = [
        (f"[{colours[one.state]}]{one.state}[/]", one.what, one.found, one.hint or "")
        for one in findings
    ]
    columns = ("", "what", "found", "fix")
    session.answer([vars(one) for one in findings], partial(_table, columns, lines))
    if any(one.state == "wrong" for one in findings):
        sys.exit(1)


@command(app, "backup")
def backup(
    session: Session, file: Annotated[Path, typer.Argument(help="The tar file to write.")]
) -> None:
    """Back up the home while it is in use.

    Writes tables, media, releases and votes into one file. The file holds accounts and the
    salt of pseudonyms: protect it like the home.
    """
    from warehouse.storage import backup

    home = session.home()
    done = backup.backup(home, file)
    session.answer(
        {"file": str(file), **done._asdict()},
        partial(
            _show_backup,
            f"{file}: {done.files} files, {done.bytes / 1e6:.1f} MB of {home.root}",
            done.missing,
        ),
    )


@command(app, "restore")
def restore(
    session: Session, file: Annotated[Path, typer.Argument(help="A file that backup wrote.")]
) -> None:
    """Restore a home from a backup after comparing every checksum."""
    from warehouse.storage import backup

    home = session.home()
    done = backup.restore(file, home)
    session.answer(
        {"home": str(home.root), **done._asdict()},
        partial(
            _show_backup,
            f"{home.root}: {done.files} files, every checksum of the backup's list holds",
            done.missing,
        ),
    )


@command(app, "migrate")
def migrate(session: Session) -> None:
    """Upgrade the tables of an older home to this schema. Back up first."""
    from pipeline import progress
    from warehouse.storage import migrations

    with session.watching():
        done = migrations.migrate(session.home(), progress=partial(progress.report, "migrate"))
    session.answer(
        done._asdict(),
        lambda console: console.print(
            f"schema {done.before} to {done.after}: {done.rewritten} files rewritten, "
            f"{done.current} were up to date"
        ),
    )


def _show_backup(line: str, missing: Sequence[str], console: Console) -> None:
    console.print(line, markup=False)
    if missing:
        console.print("not in the backup:")
    for one in missing:
        console.print(f"  {one}", markup=False)


def _table(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]], console: Console) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(table)
