"""What the lock file promises about the environment."""

from __future__ import annotations

import importlib.metadata

import cv2
import pytest


def test_the_live_cv2_is_the_new_one() -> None:
    assert cv2.__version__.startswith("5.")


@pytest.mark.parametrize(
    "name", ["opencv-python-headless", "opencv-contrib-python", "label-studio"]
)
def test_what_would_fight_is_not_installed(name: str) -> None:
    with pytest.raises(importlib.metadata.PackageNotFoundError):
        importlib.metadata.version(name)
