"""The command that draws faces to order: synth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.context import Session, command


def register(app: typer.Typer) -> None:
    command(app, "synth")(synth)


def synth(
    session: Session,
    au: Annotated[
        str, typer.Option("--au", help="AU12=0.8,AU6=C: intensities 0 to 1 or A to E; 0: absent.")
    ] = "",
    expression: Annotated[
        str | None, typer.Option("--expression", help="happiness, anger, fear, …")
    ] = None,
    n: Annotated[
        int, typer.Option("-n", min=1, max=100_000, help="Faces, seeds with --sweep.")
    ] = 16,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the first face.")] = 0,
    out: Annotated[Path, typer.Option("--out", help="Folder for pictures, sheet, record.")] = Path(
        "synthetic"
    ),
    reference: Annotated[
        Path | None, typer.Option("--reference", help="A picture of a face that lends its layout.")
    ] = None,
    sweep: Annotated[
        str | None, typer.Option("--sweep", help="AU12: that unit from 0 to 1 in five steps.")
    ] = None,
    guide: Annotated[
        bool, typer.Option("--guide/--no-guide", help="Let the machine rater steer the drawing.")
    ] = False,
) -> None:
    """Draw faces that show given action units and an expression, and measure what they show.

    Every face is read by raters that had no part in drawing it; faces.json holds what was asked,
    what was measured and the label that follows. Stop it at any moment and run it again: no face
    is drawn twice. The people do not exist; what a face shows is not what anybody feels.
    """
    from pipeline import progress
    from pipeline.synthesis import service
    from pipeline.synthesis.generator import Maker
    from pipeline.synthesis.options import Wish
    from warehouse.errors import SettingsError

    settings = session.settings()
    if reference is not None and not reference.is_file():
        raise SettingsError(
            "a picture of a face", got=f"no file {reference}", hint="check the path"
        )
    wish = Wish.of(au, expression, n=n, seed=seed, sweep=sweep)
    maker = Maker(name=settings.synthesizer, guided=guide, reference=reference)
    with session.watching():
        made = service.deliver(
            wish, maker, out.expanduser().absolute(), rater=settings.rater, say=progress.say
        )
    session.answer(made.facts, made.show)
