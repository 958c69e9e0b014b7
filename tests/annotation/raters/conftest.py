from __future__ import annotations

import pytest

from annotation.raters.training.ferplus import Faces, prepare
from tests.annotation.raters import drawn_ferplus


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Faces, Faces]:
    """Make drawn training and validation faces."""
    folder = tmp_path_factory.mktemp("ferplus")
    finder = f"{drawn_ferplus.__name__}:find_drawn"
    return tuple(  # type: ignore[return-value]
        prepare(
            drawn_ferplus.write_ferplus(folder, split, n, seed=seed),
            cache=folder,
            find=finder,
            workers=0,
        )
        for split, n, seed in (("train", 120, 0), ("valid", 20, 1))
    )
