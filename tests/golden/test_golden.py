"""Compare the public behaviour with the golden files in this folder."""

from __future__ import annotations

import pytest

from tests.golden import snapshots


@pytest.mark.parametrize("name", list(snapshots.SNAPSHOTS))
def test_golden__matches_the_code(name: str) -> None:
    if difference := snapshots.difference(name, snapshots.SNAPSHOTS[name]()):
        pytest.fail(difference, pytrace=False)


def test_golden__every_file_has_a_snapshot() -> None:
    files = {path.name for path in snapshots.FOLDER.iterdir() if path.suffix in {".txt", ".json"}}
    assert files == {*snapshots.SNAPSHOTS, snapshots.DEMO_RELEASE}
