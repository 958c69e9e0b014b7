"""New video after a release becomes v2; v1 stays as it is.

Last of its folder by name: it adds to the home that the others look at.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from annotation.raters import simulated
from pipeline import settings
from tests.end_to_end.conftest import DemoHome, risorius
from tests.media_files import damaged_batch, package_file
from warehouse.releases import verify

pytestmark = [pytest.mark.studio, pytest.mark.timeout(600)]


@pytest.mark.slow
def test_bad_files_end_as_verdicts_and_the_command_ends_well(tmp_path: Path) -> None:
    expected = damaged_batch(tmp_path / "mixed")
    done = risorius("ingest", str(tmp_path / "mixed"), home=tmp_path / "home")
    for file, code in expected.items():
        assert f"{file}: {code}" in done.stdout, file
    assert "6" in next(line for line in done.stdout.splitlines() if line.startswith("faces"))


@pytest.mark.slow
def test_new_faces_become_a_second_version(
    demo: DemoHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "later"
    folder.mkdir()
    portrait = package_file("insightface", "data/images/Tom_Hanks_54745.png")
    (folder / portrait.name).write_bytes(portrait.read_bytes())
    (folder / "videos.csv").write_text(
        f"file_name,subject_id,licence\n{portrait.name},another-subject,CC0-1.0\n"
    )
    first = demo.root / "releases" / "faces" / "v1"
    before = {path: path.read_bytes() for path in first.rglob("*") if path.is_file()}
    demo.run("ingest", str(folder))
    monkeypatch.setenv("RISORIUS_WANTED_VOTES", "4")
    pushed = json.loads(demo.run("label", "push", "--json").stdout)
    assert pushed["studio_tasks new"] == 1

    new_votes = simulated.vote_on_project(settings.load(home=demo.root).label_studio, n_raters=5)
    assert new_votes == 4
    demo.run("label", "pull")
    made = json.loads(demo.run("release", "create", "--json").stdout)
    assert (made["version"], made["created"]) == ("v2", True)
    assert {path: path.read_bytes() for path in before} == before
    assert verify(demo.root / "releases" / "faces" / "v2") == []
    split = demo.sql("select version, rows, parent from releases order by version")
    assert [(row["version"], row["parent"]) for row in split] == [(1, None), (2, 1)]
    assert split[1]["rows"] == split[0]["rows"] + 1
    again = json.loads(demo.run("release", "create", "--json").stdout)
    assert (again["version"], again["created"]) == ("v2", False)


def test_label_status_counts_what_the_tables_hold(demo: DemoHome) -> None:
    status = json.loads(demo.run("label", "status", "--json").stdout)
    (votes,) = demo.sql("select count(*) as n from current_votes")
    assert status["votes"] == votes["n"]
    assert sum(name.startswith("votes of simulated-") for name in status) == 5


def test_release_show_says_that_it_is_intact_until_a_byte_changes(demo: DemoHome) -> None:
    assert "intact    yes" in demo.run("release", "show").stdout
    report = Path(json.loads(demo.run("release", "show", "--json").stdout)["path"]) / "report.html"
    whole = report.read_bytes()
    os.chmod(report, 0o644)
    report.write_bytes(whole + b" ")
    try:
        shown = demo.run("release", "show", check=False)
        assert shown.returncode == 1
        assert "intact    yes" not in shown.stdout
    finally:
        report.write_bytes(whole)
