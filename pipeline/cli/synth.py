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
        str | None,
        typer.Option(
            "--reference",
            help="Image whose layout the faces keep; for a synthesizer of your own, the face "
            "that it edits: an image, or a face of this home by its id.",
        ),
    ] = None,
    consent: Annotated[
        str | None,
        typer.Option(
            "--consent",
            help="Consent of the person in an image to edit, as in videos.csv: yes, editing.",
        ),
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
    generated twice. The faces show no real people, unless a synthesizer of your own edits one who
    consented. An expression is not an emotion.
    """
    from functools import partial

    from pipeline import progress
    from pipeline.synthesis import service
    from synthesis.request import FaceRequest, parse_action_units

    settings = session.settings()
    request = FaceRequest.parse(au, expression, seed=seed)
    unit = next(iter(parse_action_units(f"{sweep}=1"))) if sweep else None
    generator = service.load_generator(
        settings.synthesizer,
        guided=guide,
        reference=service.reference_of(settings, reference, consent=consent) if reference else None,
    )
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
