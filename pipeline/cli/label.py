"""The commands ``risorius label``: push, pull, status."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.context import Session, command

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(help="Send faces to annotators and fetch their votes.", no_args_is_help=True)

WatchOption = Annotated[
    bool,
    typer.Option("--watch", help="Repeat every 30 seconds, and at each new vote, until Ctrl-C."),
]
BudgetOption = Annotated[
    int | None,
    typer.Option("--budget", min=0, help="Votes to request, allocated where they help most."),
]
ReaskOption = Annotated[
    int | None,
    typer.Option("--reask", min=0, help="Extra votes for every face that an audit flags."),
]
RestoreOption = Annotated[
    bool,
    typer.Option(
        "--restore-config",
        help="Restore a labeling page that was edited, and its media storage.",
    ),
]
_PAUSE_S = 30
_LINK = re.compile(r"\[(\S+)\]\((\S+)\)")


@command(app, "push")
def push(
    session: Session,
    watch: WatchOption = False,
    budget: BudgetOption = None,
    reask: ReaskOption = None,
    restore_config: RestoreOption = False,
) -> None:
    """Create Label Studio tasks for queued faces without one."""
    settings = session.settings(vote_budget=budget, reask_votes=reask)
    if restore_config:
        from annotation.label_studio import sync

        for number in sync.restore_configs(settings.label_studio):
            session.console.print(f"restored the labeling config of project {number}")
    _repeat(
        session, ("label_push",), ("label_queue", "studio_tasks"), pause=_sleep if watch else None
    )


@command(app, "pull")
def pull(session: Session, watch: WatchOption = False) -> None:
    """Pull new votes, edits and deletions, and update soft labels."""
    jobs, assets = ("label_pull", "label_requeue"), ("annotations", "soft_labels", "label_queue")
    if not watch:
        _repeat(session, jobs, assets, pause=None)
        return
    from annotation.label_studio import sync

    with sync.change_signal(session.settings().label_studio) as signal:
        _repeat(session, jobs, assets, pause=signal.wait if signal is not None else _sleep)


@command(app, "status")
def status(session: Session) -> None:
    """Show labelling progress: faces, votes, missing votes, agreement."""
    from annotation.label_studio import progress

    facts = progress.summary(session.settings().label_studio)
    session.answer(facts, partial(_show_status, facts))


def _show_status(facts: dict[str, Any], console: Console) -> None:
    alphas = {name: value for name, value in facts.items() if "alpha" in name}
    raters = {name: value for name, value in facts.items() if name.startswith("votes of ")}
    _show({name: facts[name] for name in facts if name not in alphas | raters}, console)
    console.print("\nagreement beyond chance: 1 where all agree, 0 as by chance")
    for name, value in alphas.items():
        console.print(f"  {name:<42} {_alpha(value)}")
    console.print(
        f"\n{'annotator':<20} {'votes':>6} {'skips':>6} {'agrees':>7} {'open':>6} {'share':>6}"
    )
    for name, row in raters.items():
        console.print(
            f"{name.removeprefix('votes of '):<20} {row['votes']:>6} {row['skipped']:>6} "
            f"{_or_dash(row['agreement'], '.2f'):>7} {_or_dash(row['open'], 'd'):>6} "
            f"{_or_dash(row['missing'], '.0f'):>6}"
        )
    console.print(
        "open: faces that an annotator can still get; share: an even share of the missing votes; "
        "who is who: `risorius studio people list`"
    )


def _alpha(value: dict[str, Any] | float | None) -> str:
    if value is None:
        return "not defined yet: it takes two people on a face, and two different answers"
    if isinstance(value, dict):
        faces = value["faces"]
        return f"{_alpha(value['alpha'])}  on {faces} {'face' if faces == 1 else 'faces'}"
    # Avoids minus zero.
    return f"{round(value, 2) + 0.0:>5.2f}"


def _or_dash(value: float | None, style: str) -> str:
    return "-" if value is None else format(value, style)


def _show(facts: dict[str, Any], console: Console) -> None:
    for name, value in facts.items():
        console.print(f"{name:<44} {value}")


def _sleep(seconds: float) -> bool:
    time.sleep(seconds)
    return False


def _repeat(
    session: Session,
    jobs: tuple[str, ...],
    assets: tuple[str, ...],
    *,
    pause: Callable[[float], bool] | None,
) -> None:
    """Run the jobs; with ``pause``, again after each pause until Ctrl-C."""
    from pipeline import runs

    home = session.home()
    while True:
        with session.watching():
            made: dict[str, dict[str, Any]] = {}
            for job in jobs:
                made |= runs.materialize(home, job)
        facts = {
            f"{asset} {name.replace('dagster/row_count', 'rows')}": value
            for asset in assets
            for name, value in made.get(asset, {}).items()
            # Tables and pictures belong to the Dagster page.
            if isinstance(value, int | str) and not str(value).startswith(("|", "!", "_", "-"))
        }
        links = str(made.get("studio_tasks", {}).get("own order", ""))
        facts |= {f"link of {who}": url for who, url in _LINK.findall(links)}
        session.answer(facts, partial(_show, facts))
        if pause is None:
            return
        pause(_PAUSE_S)
