from __future__ import annotations

import pickle

import pytest

from warehouse.errors import ReleaseError, RisoriusError, TableError


@pytest.mark.parametrize("kind", [RisoriusError, TableError, ReleaseError])
def test_error__message_and_pickle(kind: type) -> None:
    error = kind("a folder", got="a file", hint="name a folder")
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is kind
    assert str(back) == str(error) == "a folder: a file. Name a folder"
    assert (back.problem, back.got, back.hint) == ("a folder", "a file", "name a folder")
