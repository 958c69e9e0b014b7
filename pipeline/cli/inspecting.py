"""Commands that look and change nothing: sql, doctor."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli.context import Session, command


def register(app: typer.Typer) -> None:
    command(app, "sql")(sql)
    command(app, "doctor")(doctor)


def sql(
    session: Session,
    query: Annotated[
        str, typer.Argument(help='For example "select verdict, count(*) from faces group by all".')
    ],
) -> None:
    """Ask the tables a question in DuckDB's SQL.

    Every table of the home is a view, and so are current_votes, votes, stages and
    curated_faces. Nothing a query does can change a table.
    """
    import duckdb
    import polars as pl

    from warehouse.errors import SettingsError
    from warehouse.storage import views

    try:
        frame = views.query(session.home(), query)
    except duckdb.Error as error:
        raise SettingsError(
            "a query DuckDB understands",
            got=str(error).strip().splitlines()[0],
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


def doctor(
    session: Session,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read everything and compare every checksum.")
    ] = False,
    settings: Annotated[
        bool, typer.Option("--settings", help="List every setting, its value and its meaning.")
    ] = False,
) -> None:
    """Say what is installed, reachable and configured; what is wrong, and how to mend it."""
    import sys

    from rich.console import Console
    from rich.table import Table

    from pipeline.doctor import examine

    if settings:
        _list_settings(session)
        return
    findings = examine(session.settings(), verify=verify)

    def show(console: Console) -> None:
        table = Table(box=None, pad_edge=False)
        for column in ("", "what", "found", "to mend it"):
            table.add_column(column, overflow="fold")
        marks = {"ok": "[green]ok[/]", "note": "[yellow]note[/]", "wrong": "[red]wrong[/]"}
        for finding in findings:
            table.add_row(marks[finding.state], finding.what, finding.found, finding.hint or "")
        console.print(table)

    session.answer([vars(finding) for finding in findings], show)
    if any(finding.state == "wrong" for finding in findings):
        sys.exit(1)


def _list_settings(session: Session) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from pipeline.settings import configured

    found = configured(session.settings())

    def show(console: Console) -> None:
        table = Table(box=None, pad_edge=False)
        for column in ("variable", "value", "meaning"):
            table.add_column(column, overflow="fold")
        for one in found:
            value = f"[bold]{escape(one.value)}[/]" if one.moved else escape(one.value)
            table.add_row(one.variable, value, escape(one.meaning))
        console.print(table)

    session.answer([vars(one) for one in found], show)
