"""The locked development environment (see docs/dependencies.md)."""

from __future__ import annotations

import importlib.metadata

import cv2
import pytest


def test_cv2__is_version_5_in_the_development_environment() -> None:
    assert cv2.__version__.startswith("5.")


@pytest.mark.parametrize(
    "name", ["opencv-python-headless", "opencv-contrib-python", "label-studio"]
)
def test_environment__lacks_conflicting_packages(name: str) -> None:
    with pytest.raises(importlib.metadata.PackageNotFoundError):
        importlib.metadata.version(name)
