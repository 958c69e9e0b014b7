"""What every test gets: no setting of the shell it is run from."""

from __future__ import annotations

import os

import pytest

_KEPT = {"RISORIUS_SHARED"}


@pytest.fixture(autouse=True)
def no_settings_of_the_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("RISORIUS_", "LABEL_STUDIO_")) and name not in _KEPT:
            monkeypatch.delenv(name)
