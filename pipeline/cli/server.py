"""Commands about the servers: dev, studio up, down, status, people."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Annotated

import typer

from pipeline.cli.context import Session, command

PortOption = Annotated[int, typer.Option("--port", min=1024, max=65535, help="Port of the UI.")]


def register(app: typer.Typer) -> None:
    command(app, "dev")(dev)
    command(app, "serve")(serve)
    group = typer.Typer(help="The local Label Studio of this home.", no_args_is_help=True)
    app.add_typer(group, name="studio")
    command(group, "up")(up)
    command(group, "down")(down)
    command(group, "status")(status)
    people = typer.Typer(help="Who may vote.", no_args_is_help=True)
    group.add_typer(people, name="people")
    command(people, "add")(people_add)
    command(people, "list")(people_list)
    command(people, "remove")(people_remove)


def dev(session: Session, port: PortOption = 3000) -> None:
    """Open the Dagster UI and Label Studio for daily use; Ctrl-C stops both."""
    from pipeline import studio
    from pipeline.dagster_instance.instance import open_instance, workspace
    from warehouse.errors import SettingsError

    settings = session.settings()
    home = settings.place
    open_instance(home)
    address = studio.address(settings, say=session.console.print)
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
        with studio.bell(settings):
            code = dagster.wait()
    except KeyboardInterrupt:
        # The terminal has sent the same signal to Dagster; give it time to close its servers.
        code = dagster.wait(timeout=30)
    finally:
        if address.started:
            studio.down(settings)
    if code not in (0, -2, 130):
        raise SettingsError(
            "the Dagster UI to run",
            got=f"exit code {code}",
            hint="read its lines above; is the port free?",
        )


def serve(
    session: Session,
    what: Annotated[str, typer.Argument(help="webserver or daemon")],
    host: Annotated[str, typer.Option("--host", help="Address the UI listens on.")] = "127.0.0.1",
    port: PortOption = 3000,
) -> None:
    """Become one of Dagster's two servers, for a service manager that keeps each running."""
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
        warning = f"Dagster has no accounts: whoever reaches {host}:{port} may run anything"
        session.console.print(warning, style="red")
    os.environ |= {
        "RISORIUS_HOME": mirror.url_of(home.root) or str(home.root),
        "DAGSTER_HOME": str(home.dagster),
    }
    sys.stdout.flush()
    os.execv(words[0], words)


def up(session: Session) -> None:
    """Start Label Studio on loopback, or find it running, and say where."""
    from pipeline import studio

    settings = session.settings()
    address = studio.address(settings, say=session.console.print)
    login = studio.login(settings)
    session.answer(
        {"url": address.url, **login},
        lambda console: console.print(
            f"{address.url}  sign in as {login['email']}, password in {login['password_file']}"
        ),
    )


def down(session: Session) -> None:
    """Stop the local Label Studio; everything it holds stays on disk."""
    from pipeline import studio

    stopped = studio.down(session.settings())
    session.answer(
        {"stopped": stopped},
        lambda console: console.print("stopped" if stopped else "it was not running"),
    )


def status(session: Session) -> None:
    """Whether Label Studio runs, and where."""
    from pipeline import studio

    state = studio.status(session.settings())
    session.answer({"status": state}, lambda console: console.print(state or "not running"))


def people_add(
    session: Session,
    email: Annotated[str, typer.Argument(help="E-mail; becomes the account's name.")],
    filmed: Annotated[
        bool,
        typer.Option("--self", help="The filmed person: answers are self-reports, kept apart."),
    ] = False,
    subject: Annotated[
        str | None,
        typer.Option("--subject", help="With --self: the subject_id whose faces are theirs."),
    ] = None,
) -> None:
    """Give a person an own account and token."""
    from pipeline import studio

    if filmed != bool(subject):
        raise typer.BadParameter("a filmed person needs both: --self --subject ID")
    settings = session.settings()
    person = studio.add_person(settings, email, subject=subject)
    said = f"{person['email']} votes as {person['rater_id']}; password in {person['password_file']}"
    if person["kind"] != ("self" if filmed else "person"):
        said = f"{person['email']} has an account already, and votes as {person['rater_id']}"
    session.answer(person, lambda console: console.print(said))


def people_list(session: Session) -> None:
    """Everyone who has an account, with the pseudonym that tables and releases show."""
    from pipeline import studio

    people = studio.list_people(session.settings())
    session.answer(
        people,
        lambda console: console.print(
            "\n".join(
                "  ".join(filter(None, map(item.get, ("email", "rater_id", "state", "subject"))))
                for item in people
            )
            or "nobody yet"
        ),
    )


def people_remove(
    session: Session, email: Annotated[str, typer.Argument(help="Whose account to close.")]
) -> None:
    """Close a person's account; their votes stay, under their pseudonym."""
    from pipeline import studio

    removed = studio.remove_person(session.settings(), email)
    said = f"removed {email}" if removed else f"nobody called {email} has an account here"
    session.answer({"removed": removed}, lambda console: console.print(said))
