"""Fixtures that several pipeline tests share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pipeline.synthesis.service import FaceGenerator


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a diffusion pipeline that takes milliseconds and draws noise."""
    # Here: torch takes seconds, and most tests of this folder never need it.
    from tests.synthesis.tiny_models import pixel_pipeline

    folder = tmp_path_factory.mktemp("network")
    pixel_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def generator(network: Path) -> FaceGenerator:
    from pipeline.synthesis.service import FaceGenerator

    return FaceGenerator(name=str(network), num_inference_steps=2)
