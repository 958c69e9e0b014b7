"""Commands of the main road: demo, ingest, audit."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli import admin, forget, import_dataset, synth
from pipeline.cli.context import Session, command

BatchOption = Annotated[
    str | None, typer.Option("--batch", help="Name of the batch. Default: the folder's name.")
]


def register(app: typer.Typer) -> None:
    command(app, "demo")(demo)
    command(app, "ingest")(ingest)
    command(app, "audit")(audit)
    forget.register(app)
    synth.register(app)
    import_dataset.register(app)
    admin.register(app)


def demo(
    session: Session,
    raters: Annotated[int, typer.Option("--raters", min=3, max=20, help="Simulated raters.")] = 4,
) -> None:
    """Run the whole loop on sample clips: a real Label Studio, simulated raters, a release.

    Run it again in the same home and nothing is repeated. Stop it at any moment and run it
    again: it goes on where it was.
    """
    from pipeline.demo import run

    with session.watching():
        summary = run(session.settings(wanted_votes=raters), say=session.console.print)
    session.answer(summary.facts, summary.show)


def ingest(
    session: Session,
    paths: Annotated[
        list[str], typer.Argument(help="Videos, images, folders, ZIP archives, URLs.")
    ],
    batch: BatchOption = None,
) -> None:
    """Turn videos or images into faces; a videos.csv beside them may name subjects and licences.

    Files stay where they are: the batch keeps their addresses. Archives are unpacked and URLs
    (https, s3 and whatever fsspec knows) fetched into the batch; run it again, and only what
    changed is. A file that cannot be read ends as a line of the summary, not as a failure.
    """
    from pipeline import runs
    from pipeline.ingest import batches

    settings = session.settings()
    home = settings.place
    name = batches.create(home, paths, batch=batch)
    runs.add_batch(home, name)
    with session.watching():
        runs.materialize(home, "ingest", batch=name)
    summary = batches.summary(home, name)
    session.answer(summary.facts, summary.show)


def audit(session: Session) -> None:
    """Run the audits over everything labelled and print what they found."""
    from pipeline import runs
    from pipeline.audits import findings

    home = session.home()
    with session.watching():
        runs.materialize(home, "audit")
    found = findings(home)
    session.answer(found.facts, found.show)
