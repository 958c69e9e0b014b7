"""What every test gets: no setting of the shell it is run from."""

from __future__ import annotations

import os

import pytest

_KEPT = {"RISORIUS_SHARED"}

_ONE_WORKER = ("studio", "end_to_end")
"""Folders whose tests share a server or a home that takes long to make."""


@pytest.fixture(autouse=True)
def no_settings_of_the_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("RISORIUS_", "LABEL_STUDIO_")) and name not in _KEPT:
            monkeypatch.delenv(name)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With several workers, one of them runs a whole file, or a whole folder with one server."""
    for item in items:
        path = item.path.relative_to(item.config.rootpath / "tests")
        together = next((name for name in _ONE_WORKER if name in path.parts), path.as_posix())
        item.add_marker(pytest.mark.xdist_group(together))
