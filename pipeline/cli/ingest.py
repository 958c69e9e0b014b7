"""The commands ``risorius demo``, ``ingest`` and ``import``."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli.context import Session, command

app = typer.Typer()


@command(app, "demo")
def demo(
    session: Session,
    raters: Annotated[int, typer.Option("--raters", min=3, max=20, help="Simulated raters.")] = 4,
    items: Annotated[
        bool, typer.Option("--items", help="Label segments of a clip with sound too.")
    ] = False,
) -> None:
    """Run the whole loop on sample clips.

    Uses a real Label Studio with simulated raters and writes a release. Run it again in the
    same home to continue an interrupted run; finished steps are skipped.
    """
    from pipeline.demo import run

    with session.watching():
        options = {"pages": "utterance", "keep_audio": True} if items else {}
        settings = session.settings(wanted_votes=raters, **options)
        report = run(settings, items=items, progress=session.console.print)
    session.answer(report.facts, report.show)


@command(app, "ingest")
def ingest(
    session: Session,
    paths: Annotated[
        list[str], typer.Argument(help="Videos, images, folders, ZIP archives, URLs.")
    ],
    batch: Annotated[
        str | None, typer.Option("--batch", help="Name of the batch. Default: the folder's name.")
    ] = None,
) -> None:
    """Find the faces in videos or images.

    A videos.csv beside the files may declare subjects and licences. Files are referenced, not
    copied. Archives are unpacked and URLs (https, s3 and whatever fsspec supports) fetched. Run
    it again to process only what changed. An unreadable file is listed in the summary and does
    not fail the batch.
    """
    from pipeline import progress, runs
    from pipeline.ingest import batches
    from warehouse.storage import locks

    home = session.settings().place
    with locks.writing(home.root, waiting=progress.waiting), session.watching():
        name = batches.create(home, paths, batch=batch)
        runs.add_batch(home, name)
        runs.materialize(home, "ingest", batch=name)
    summary = batches.summary(home, name)
    session.answer(summary.facts, summary.show)


@command(app, "import")
def import_(
    session: Session,
    folder: Annotated[str, typer.Argument(help="Folder of the dataset.")],
    name: Annotated[
        str | None, typer.Option("--name", help="Name of the batch. Default: the folder's name.")
    ] = None,
    format_: Annotated[
        str, typer.Option("--format", help="Structure of the dataset, or auto: recognise it.")
    ] = "auto",
    label_column: Annotated[
        str | None, typer.Option("--label-column", help="Column of the labels.")
    ] = None,
    map_: Annotated[
        list[str] | None,
        typer.Option("--map", help="WORD=ANSWER of the dataset; repeatable. WORD= drops it."),
    ] = None,
    label_set: Annotated[
        str | None, typer.Option("--label-set", help="SET[:ORDER] of the answers.")
    ] = None,
    gate: Annotated[
        str, typer.Option("--gate", help="flag: keep labelled faces; drop: as for videos.")
    ] = "flag",
) -> None:
    """Import a labelled dataset.

    Recognises published structures (FER2013, FER+, AffectNet, RAF-DB, CK+, ExpW, Hub datasets and
    others), the layouts of `release export`, and metadata.(csv|jsonl|parquet) beside images: one
    row per image (file_name) with label, or votes (expression: count), or one row per vote
    (file_name, rater_id, label). Synonyms of expressions are understood. Run it again to import
    only what changed.
    """
    from pipeline import import_dataset
    from pipeline.importers.samples import Options
    from warehouse.errors import SettingsError

    if gate not in ("flag", "drop"):
        raise SettingsError("--gate is neither flag nor drop", got=gate, hint="choose one of them")
    pairs = [one.partition("=") for one in map_ or ()]
    if bad := [word for word, sign, _ in pairs if not sign or not word.strip()]:
        raise SettingsError("--map has no WORD=ANSWER", got=bad[0], hint="write --map 7=surprise")
    options = Options(
        label_column=label_column,
        label_map={word.strip(): answer.strip() for word, _, answer in pairs},
        label_set=label_set,
        drop=gate == "drop",
    )
    with session.watching():
        report = import_dataset.run(
            session.settings(), folder, name=name, format_name=format_, options=options
        )
    session.answer(report.facts, report.show)
