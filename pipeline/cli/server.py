"""The commands ``risorius dev``, ``serve`` and ``studio``."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Annotated

import typer

from pipeline.cli.context import Session, command

app = typer.Typer()
studio = typer.Typer(help="Run the local Label Studio of this home.", no_args_is_help=True)
people = typer.Typer(help="Manage annotator accounts.", no_args_is_help=True)
app.add_typer(studio, name="studio")
studio.add_typer(people, name="people")

PortOption = Annotated[int, typer.Option("--port", min=1024, max=65535, help="Port of the UI.")]


@command(app, "dev")
def dev(session: Session, port: PortOption = 3000) -> None:
    """Run the Dagster UI and Label Studio for daily use; Ctrl-C stops both."""
    from annotation.label_studio import sync
    from pipeline.dagster_instance.instance import open_instance, workspace
    from warehouse.errors import SettingsError

    settings = session.settings()
    home = settings.place
    open_instance(home)
    address = settings.label_studio.address(progress=session.console.print)
    session.console.print(f"Dagster       http://127.0.0.1:{port}")
    session.console.print(f"Label Studio  {address.url}")
    session.console.print(f"inbox         {home.inbox}   (a new folder here becomes a batch)")
    home.inbox.mkdir(parents=True, exist_ok=True)
    command_line = [sys.executable, "-m", "dagster", "dev", "-w", str(workspace(home))]
    dagster = subprocess.Popen(
        [*command_line, "-h", "127.0.0.1", "-p", str(port), "--log-level", "warning"],
        env={**os.environ, "RISORIUS_HOME": str(home.root), "DAGSTER_HOME": str(home.dagster)},
    )
    try:
        with sync.change_signal(settings.label_studio):
            code = dagster.wait()
    except KeyboardInterrupt:
        # The terminal has sent the same signal to Dagster; give it time to close its servers.
        code = dagster.wait(timeout=30)
    finally:
        if address.started:
            settings.label_studio.down()
    if code not in (0, -2, 130):
        raise SettingsError(
            "The Dagster UI stopped",
            got=f"exit code {code}",
            hint="read its lines above and check that the port is free",
        )


@command(app, "serve")
def serve(
    session: Session,
    what: Annotated[str, typer.Argument(help="webserver or daemon")],
    host: Annotated[str, typer.Option("--host", help="Address the UI listens on.")] = "127.0.0.1",
    port: PortOption = 3000,
) -> None:
    """Run one of Dagster's two servers, under a service manager."""
    from pipeline.dagster_instance.instance import configure, workspace
    from warehouse.storage import mirror

    if what not in ("webserver", "daemon"):
        raise typer.BadParameter("webserver or daemon")
    home = session.settings().place
    configure(home)
    place = ["-w", str(workspace(home))]
    if what == "daemon":
        words = [sys.executable, "-m", "dagster._daemon", "run", *place]
    else:
        listen = ["-h", host, "-p", str(port)]
        words = [sys.executable, "-m", "dagster_webserver", *place, *listen]
    if what == "webserver" and host not in ("127.0.0.1", "localhost", "::1"):
        warning = f"Dagster has no accounts: any client that reaches {host}:{port} may run anything"
        session.console.print(warning, style="red")
    os.environ |= {
        "RISORIUS_HOME": mirror.url_of(home.root) or str(home.root),
        "DAGSTER_HOME": str(home.dagster),
    }
    sys.stdout.flush()
    os.execv(words[0], words)


@command(studio, "up")
def up(session: Session) -> None:
    """Start Label Studio on loopback and print its address."""
    settings = session.settings()
    address = settings.label_studio.address(progress=session.console.print)
    login = settings.label_studio.login()
    session.answer(
        {"url": address.url, **login},
        lambda console: console.print(
            f"{address.url}  sign in as {login['email']}, password in {login['password_file']}"
        ),
    )


@command(studio, "down")
def down(session: Session) -> None:
    """Stop the local Label Studio; everything it holds stays on disk."""
    stopped = session.settings().label_studio.down()
    session.answer(
        {"stopped": stopped},
        lambda console: console.print("stopped" if stopped else "it was not running"),
    )


@command(studio, "status")
def status(session: Session) -> None:
    """Print whether Label Studio runs, and where."""
    state = session.settings().label_studio.status()
    session.answer({"status": state}, lambda console: console.print(state or "not running"))


@command(people, "add")
def people_add(
    session: Session,
    email: Annotated[str, typer.Argument(help="E-mail; becomes the account's name.")],
    self_report: Annotated[
        bool,
        typer.Option("--self", help="Self-reports of a data subject, stored apart from votes."),
    ] = False,
    subject: Annotated[
        str | None,
        typer.Option("--subject", help="With --self: the subject_id to report on."),
    ] = None,
) -> None:
    """Create an annotator's account with a token of its own."""
    from annotation.label_studio import users

    if self_report != bool(subject):
        raise typer.BadParameter("self-reports need both: --self --subject ID")
    workspace = session.settings().label_studio
    account = users.add_account(workspace, email, subject=subject)
    folder = f"{workspace.home.studio}/" if account.email else ""
    password_file = f"{folder}{users.ACCOUNTS}" + (
        "" if account.email else " of the machine that made the account"
    )
    facts = account.summary() | {"email": account.email or email, "password_file": password_file}
    message = f"{facts['email']} votes as {account.rater_id}; password in {password_file}"
    if account.kind != ("self" if self_report else "person"):
        message = f"{facts['email']} has an account already, and votes as {account.rater_id}"
    session.answer(facts, lambda console: console.print(message))


@command(people, "list")
def people_list(session: Session) -> None:
    """List accounts with the pseudonyms that tables and releases show."""
    from annotation.label_studio import users

    rows = [one.summary() for one in users.list_accounts(session.settings().label_studio)]
    shown = ("email", "rater_id", "state", "subject")
    lines = ["  ".join(filter(None, map(row.get, shown))) for row in rows]
    session.answer(rows, lambda console: console.print("\n".join(lines) or "no accounts yet"))


@command(people, "remove")
def people_remove(
    session: Session, email: Annotated[str, typer.Argument(help="E-mail of the account to remove.")]
) -> None:
    """Remove an account; its votes stay under its pseudonym."""
    from annotation.label_studio import users

    removed = users.remove_account(session.settings().label_studio, email)
    message = f"removed {email}" if removed else f"there is no account {email} here"
    session.answer({"removed": removed}, lambda console: console.print(message))
