"""The deprecated module ``annotation.aggregate``."""

from __future__ import annotations

import importlib
import sys

import pytest

from annotation import aggregation


def test_aggregate__warns_and_reexports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "annotation.aggregate", raising=False)
    with pytest.warns(DeprecationWarning, match=r"use annotation\.aggregation"):
        alias = importlib.import_module("annotation.aggregate")
    assert alias.__all__ == aggregation.__all__
    assert all(getattr(alias, name) is getattr(aggregation, name) for name in alias.__all__)
