"""The command for datasets that others labelled: import."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli.context import Session, command


def register(app: typer.Typer) -> None:
    command(app, "import")(import_)


def import_(
    session: Session,
    folder: Annotated[str, typer.Argument(help="Pictures and metadata.(csv|jsonl|parquet).")],
    name: Annotated[
        str | None, typer.Option("--name", help="Name of the batch. Default: the folder's name.")
    ] = None,
) -> None:
    """Bring in a dataset that others labelled: pictures, with a label or several raters' votes.

    metadata has one row per picture (file_name) with label, or votes (expression: count), or one
    row per vote (file_name, rater_id, label). Usual names of expressions are understood. Run it
    again and nothing is repeated.
    """
    from pipeline import import_dataset

    with session.watching():
        imported = import_dataset.run(session.settings(), folder, name=name)
    session.answer(imported.facts, imported.show)
