"""What every test gets: no setting of the shell it is run from."""

from __future__ import annotations

import os
from typing import Any

import pytest

_KEPT = {"RISORIUS_SHARED"}

if "PYTEST_XDIST_WORKER" in os.environ:
    # Two workers whose libraries each take every core wait for each other: tenfold, measured.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

_ONE_WORKER = ("end_to_end", "label_studio")
"""Folders whose tests share a server or a home that takes long to make. They start first, so that
no worker ends alone with one of them."""


@pytest.fixture(autouse=True)
def no_settings_of_the_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("RISORIUS_", "LABEL_STUDIO_")) and name not in _KEPT:
            monkeypatch.delenv(name)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the folders that take longest first."""

    def place(item: pytest.Item) -> int:
        found = [i for i, name in enumerate(_ONE_WORKER) if f"/{name}/" in item.nodeid]
        return found[0] if found else len(_ONE_WORKER)

    items.sort(key=place)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Run a whole file, or a folder with one server, on one worker."""
    from xdist.scheduler import LoadScopeScheduling

    config.option.loadscopereorder = False

    class ByServer(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.split("::", 1)[0]
            return next((name for name in _ONE_WORKER if f"/{name}/" in file), file)

    return ByServer(config, log)
