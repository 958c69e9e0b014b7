"""The command ``risorius synth``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.context import Session, command

app = typer.Typer()


@command(app, "synth")
def synth(
    session: Session,
    au: Annotated[
        str, typer.Option("--au", help="Intensities, 0 to 1 or A to E: AU12=0.8,AU6=C. 0: absent.")
    ] = "",
    expression: Annotated[
        str | None, typer.Option("--expression", help="happiness, anger, fear, …")
    ] = None,
    n: Annotated[
        int, typer.Option("-n", min=1, max=100_000, help="Number of faces; with --sweep, of seeds.")
    ] = 16,
    seed: Annotated[
        int, typer.Option("--seed", min=0, help="Seed of the first face; the others count up.")
    ] = 0,
    out: Annotated[Path, typer.Option("--out", help="Folder for images, sheet and record.")] = Path(
        "synthetic"
    ),
    reference: Annotated[
        Path | None, typer.Option("--reference", help="Image whose layout the faces keep.")
    ] = None,
    sweep: Annotated[
        str | None, typer.Option("--sweep", help="Run one unit from 0 to 1 in five steps: AU12.")
    ] = None,
    guide: Annotated[
        bool, typer.Option("--guide/--no-guide", help="Guide the generation by the machine rater.")
    ] = False,
) -> None:
    """Generate faces with given action units and expression, and measure them.

    Raters that had no part in the generation rate every face. faces.json holds requests,
    measurements and labels. Run the command again to continue an interrupted run; no face is
    generated twice. The faces show no real people, and an expression is not an emotion.
    """
    from functools import partial

    from pipeline import progress
    from pipeline.synthesis import service
    from synthesis.request import FaceRequest, parse_action_units
    from warehouse.errors import SettingsError

    settings = session.settings()
    if reference is not None and not reference.is_file():
        raise SettingsError(
            "The reference image does not exist", got=str(reference), hint="check the path"
        )
    request = FaceRequest.parse(au, expression, seed=seed)
    unit = next(iter(parse_action_units(f"{sweep}=1"))) if sweep else None
    generator = service.FaceGenerator(name=settings.synthesizer, guided=guide, reference=reference)
    with session.watching():
        facts = service.generate(
            request,
            generator,
            out.expanduser().absolute(),
            n=n,
            sweep=unit,
            rater=settings.rater,
            progress=progress.report,
        )
    session.answer(facts, partial(service.show, facts))
