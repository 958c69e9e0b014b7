from __future__ import annotations

import pytest

from annotation.raters.training.ferplus import Faces, prepare
from tests.annotation.raters import ferplus_drawn


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Faces, Faces]:
    """Training and validation faces, drawn."""
    folder = tmp_path_factory.mktemp("ferplus")
    finder = f"{ferplus_drawn.__name__}:find_drawn"
    return tuple(  # type: ignore[return-value]
        prepare(
            ferplus_drawn.write_ferplus(folder, split, n, seed=seed),
            cache=folder,
            find=finder,
            workers=0,
        )
        for split, n, seed in (("train", 120, 0), ("valid", 20, 1))
    )
