"""What tests of several parts of the pipeline share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pipeline.synthesis.generator import Maker


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved diffusion pipeline that draws in milliseconds, and nothing one would call a face."""
    # Here: torch takes seconds, and most tests of this folder never need it.
    from tests.synthesis.tiny_models import pixel_pipeline

    folder = tmp_path_factory.mktemp("network")
    pixel_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def maker(network: Path) -> Maker:
    from pipeline.synthesis.generator import Maker

    return Maker(name=str(network), steps=2)
