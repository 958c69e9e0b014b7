"""``label pull --watch`` as a process: new votes are pulled."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from annotation.label_studio.client import LabelStudioClient
from annotation.label_studio.users import Account
from tests.annotation.label_studio.conftest import api
from tests.annotation.label_studio.test_label_studio_projects import Office, offered, office, vote

__all__ = ["office"]

pytestmark = [pytest.mark.studio, pytest.mark.slow]

COMMAND = [sys.executable, "-u", "-c", "from pipeline.cli import main; main()"]


@contextmanager
def watching(made: Office) -> Iterator[subprocess.Popen[str]]:
    """Run the command on an office's home; kill it if it has not ended."""
    given = {f"RISORIUS_{name.upper()}": str(value) for name, value in made.given.items()}
    process = subprocess.Popen(
        [*COMMAND, "label", "pull", "--watch", "--home", str(made.home.root)],
        env=os.environ | given, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def standing(process: subprocess.Popen[str]) -> int:
    """Reads on to the end of a round; the votes that stood then."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("annotations votes_standing"):
            return int(line.split()[-1])
    raise AssertionError(process.communicate()[1])


def test_pull_watch__pulls_a_new_vote_and_ends_on_ctrl_c(
    office: Callable[..., Office], client: LabelStudioClient, voters: list[Account]
) -> None:
    made = office(2)
    (number,) = made.push().tasks
    task = offered(client, number)[made.face_ids[0]]
    with watching(made) as process:
        assert standing(process) == 0
        vote(voters[0], client, task, "fear")
        # The webhook ends the pause; without it the round after next would find the vote too.
        assert standing(process) == 1
        assert made.ask("SELECT label FROM votes") == [("fear",)]
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.strip().splitlines()[-1] == "stopped; run the same command again to continue"
    assert [
        hook for hook in api(client, "GET", "/api/webhooks/") if hook["project"] == number
    ] == []
