"""Settings, output and the options --home --json --debug of commands."""

from __future__ import annotations

import functools
import inspect
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from pipeline.settings import Settings
    from warehouse.storage.home import Home

HomeOption = Annotated[
    Path | None,
    typer.Option("--home", help="Folder of all data. Default: RISORIUS_HOME or ./.risorius"),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on standard output.")
]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of a failure.")]

_FEW = 10


@dataclass(frozen=True)
class Session:
    """One run of one command."""

    home_option: Path | None
    json: bool

    def settings(self, **given: object) -> Settings:
        """Return the settings, overridden by options.

        Options are also put into the environment, where assets read their settings, in this
        process and in those of ``risorius dev``.
        """
        import os

        from pipeline import settings
        from warehouse.storage import mirror

        options = {name: value for name, value in given.items() if value is not None}
        os.environ.update(
            {f"RISORIUS_{name.upper()}": str(value) for name, value in options.items()}
        )
        found = settings.load(home=self.home_option, **options)
        found.apply_umask()
        mirror.sync(found.place.root)
        if warning := found.place.clock_warning():
            print(warning, file=sys.stderr)
        return found

    def home(self) -> Home:
        return self.settings().place

    @property
    def console(self) -> Console:
        """Console for people: standard error if --json uses standard output."""
        from rich.console import Console

        return Console(stderr=self.json, highlight=False, soft_wrap=True)

    def answer(self, document: Any, show: Callable[[Console], None]) -> None:
        """Print the result: ``document`` with --json, else call ``show``."""
        if self.json:
            print(json.dumps(document, indent=2, default=str))
        else:
            show(self.console)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Show progress while the block runs: bars on a terminal, lines elsewhere."""
        from pipeline.progress import listening

        if sys.stderr.isatty():
            with _bars() as listener, listening(listener):
                yield
        else:
            with listening(_lines):
                yield


def command(app: typer.Typer, name: str | None = None) -> Callable[[Callable[..., Any]], Any]:
    """Register a command ``function(session, …)``.

    The command also takes --home, --json and --debug.
    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        hints = get_type_hints(function, include_extras=True)
        own = list(inspect.signature(function).parameters.values())[1:]

        @functools.wraps(function)
        def run(**given: Any) -> None:
            home, as_json = given.pop("home"), given.pop("json")
            given.pop("debug")
            try:
                function(Session(home_option=home, json=as_json), **given)
            except KeyboardInterrupt:
                # Typer would exit with 130 and without a message.
                print("\nstopped; run the same command again to continue", file=sys.stderr)
                sys.exit(130)

        shared = [
            inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, annotation=kind, default=default)
            for key, kind, default in (
                ("home", HomeOption, None),
                ("json", JsonOption, False),
                ("debug", DebugOption, False),
            )
        ]
        parameters = [
            parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[parameter.name])
            for parameter in own
        ] + shared
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {item.name: item.annotation for item in parameters}
        # Typer resolves annotations on the innermost function; ours are resolved already.
        del run.__wrapped__
        app.command(name)(run)
        return function

    return register


def _lines(stage: str, item: str, done: int, total: int) -> None:
    # A log shows about ten lines per stage, not one of each of ten thousand votes.
    if total <= _FEW or done == total or done % max(1, total // _FEW) == 0:
        print(f"{stage} {done}/{total} {item}", file=sys.stderr, flush=True)


@contextmanager
def _bars() -> Iterator[Callable[[str, str, int, int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description:<12}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TextColumn("{task.fields[item]}"), console=Console(stderr=True)) as bar:
        tasks: dict[str, Any] = {}

        def listener(stage: str, item: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=total, item=item)
            bar.update(tasks[stage], completed=done, total=total, item=item)

        yield listener
