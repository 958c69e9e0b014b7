"""Command line ``risorius``.

Commands import heavy modules themselves, so that help is fast.
"""

from __future__ import annotations

import sys

import typer

from pipeline.cli import admin, audit, forget, ingest, label, models, release, server, synth

app = typer.Typer(
    name="risorius",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help=(
        "Turn raw face video into versioned expression datasets that keep annotators' "
        "disagreement.\n\n"
        "Start with [bold]risorius demo[/bold]: the whole loop on sample clips. Then "
        "[bold]risorius ingest[/bold] your own videos, [bold]risorius label push[/bold] their "
        "faces to annotators, and run [bold]risorius release create[/bold]."
    ),
)
app.add_typer(ingest.app)
app.add_typer(label.app, name="label")
app.add_typer(audit.app)
app.add_typer(synth.app)
app.add_typer(release.app, name="release")
app.add_typer(forget.app)
app.add_typer(server.app)
app.add_typer(models.app, name="models")
app.add_typer(admin.app)


def main() -> None:
    """Run the command line.

    Exit codes: 0 done, 1 failed with one message, 2 wrong usage.
    """
    from warehouse.errors import RisoriusError, system_failure
    from warehouse.masking import mask

    try:
        app()
    except BrokenPipeError:
        # `risorius sql … | head`: the reader closed the pipe.
        sys.stderr.close()
        sys.exit(0)
    except Exception as error:
        if "--debug" in sys.argv:
            import traceback

            print(mask(traceback.format_exc()), file=sys.stderr)
        known = error if isinstance(error, RisoriusError) else system_failure(error)
        message = str(known)
        if known is None:
            message = (
                f"a bug: {type(error).__name__}: {mask(str(error))}; run it again with --debug and "
                "report what it prints"
            )
        print(f"risorius: {message}", file=sys.stderr)
        sys.exit(1)
