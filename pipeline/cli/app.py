"""The command tree of DESIGN's contract, as far as it is built."""

from __future__ import annotations

import typer

app = typer.Typer(
    name="risorius",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help=(
        "Raw face video into versioned expression datasets whose labels keep the disagreement.\n\n"
        "Start with [bold]risorius demo[/bold]: the whole loop on sample clips. Then "
        "[bold]risorius ingest[/bold] your own videos, [bold]risorius label push[/bold] them to "
        "people, and [bold]risorius release create[/bold]."
    ),
)

from pipeline.cli import commands, inspecting, label, models, release, server  # noqa: E402

for module in (commands, label, release, server, models, inspecting):
    module.register(app)
