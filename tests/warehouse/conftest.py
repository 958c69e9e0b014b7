"""Drawn test data: faces are ellipses, votes come from three raters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import polars as pl
import pytest

from warehouse.storage import media
from warehouse.storage.home import Home
from warehouse.vocabulary import ACTION_UNITS, EXPRESSIONS


@pytest.fixture(autouse=True, scope="session")
def offline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Disable the Hub and user caches before ``datasets`` is imported."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HOME", str(tmp_path_factory.mktemp("huggingface")))
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
        yield


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.at(tmp_path / "home")


@pytest.fixture
def draw() -> Callable[..., np.ndarray]:
    return drawn_face


@pytest.fixture
def inputs() -> Callable[..., dict[str, Any]]:
    """Return ``release_inputs``: ``(home, people={"ann": 8, …})``."""
    return release_inputs


def drawn_face(seed: int, size: int = 48) -> np.ndarray:
    """Draw an ellipse with eyes and mouth; uint8[size, size, 3], RGB."""
    random = np.random.default_rng(seed)
    image = random.integers(0, 60, (size, size, 3), dtype=np.uint8)
    centre = (size // 2, size // 2)
    skin = tuple(int(value) for value in random.integers(120, 230, 3))
    cv2.ellipse(image, centre, (size // 3, size // 2 - 3), 0, 0, 360, skin, -1)
    for x in (size // 2 - size // 8, size // 2 + size // 8):
        cv2.circle(image, (x, size // 2 - size // 8), max(size // 20, 1), (20, 20, 20), -1)
    bend = int(random.integers(-size // 6, size // 6))
    mouth = (size // 2, size // 2 + size // 5)
    angles = (0, 180) if bend >= 0 else (180, 360)
    cv2.ellipse(image, mouth, (size // 6, abs(bend) // 2 + 1), 0, *angles, (150, 30, 40), 2)
    return image


def release_inputs(home: Home, people: dict[str, int] | None = None) -> dict[str, Any]:
    """Return arguments of ``build``: one video per person, 3 votes per face."""
    people = people or {"ann": 8, "bob": 6, "cid": 4, "dee": 2}
    faces = [(name, index) for name, count in sorted(people.items()) for index in range(count)]
    rows, votes = [], []
    for number, (name, index) in enumerate(faces):
        face = f"{name}-0000-{index}"
        counts, mine = _vote(face, number)
        votes += mine
        rows.append(_row(home, face, name, number, counts))
    facts = {
        "stages": [
            {"stage": "videos", "verdict": "kept", "reason": None, "n": len(people)},
            {"stage": "videos", "verdict": "failed", "reason": "cannot_be_decoded", "n": 1},
            {"stage": "faces", "verdict": "kept", "reason": None, "n": len(rows)},
            {"stage": "faces", "verdict": "dropped", "reason": "too_small", "n": 3},
        ]
    }
    return {
        "name": "faces",
        "rows": pl.DataFrame(rows, infer_schema_length=None),
        "votes": pl.DataFrame(votes, infer_schema_length=None),
        "facts": facts,
        "settings": {"sample_rate": 5},
        "code_version": "test",
    }


def _vote(face: str, number: int) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Return three votes that agree on even faces and differ on odd ones."""
    counts, votes = np.zeros(len(EXPRESSIONS)), []
    for rater in range(3):
        answer = (number + (rater if number % 2 else 0)) % len(EXPRESSIONS)
        counts[answer] += 1
        votes.append(
            {
                "face_id": face,
                "rater_id": f"simulated-{rater:08d}",
                "rater_kind": "simulated",
                "expressions": [EXPRESSIONS[answer]],
                "confidence": "sure",
                "valence": 0.5,
                "arousal": None,
                "lead_time_s": 2.0 + rater,
                "was_cancelled": False,
                "updated_at": datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=number),
            }
        )
    return counts, votes


def _row(home: Home, face: str, name: str, number: int, counts: np.ndarray) -> dict[str, Any]:
    shares = counts / counts.sum()
    positive = shares[shares > 0]
    return {
        "face_id": face,
        "video_id": f"video-{name}",
        "track_id": f"video-{name}-0000",
        "subject_id": name,
        "time_s": number / 5,
        "crop": media.store(home, "crops", drawn_face(number)),
        "soft_label": shares.tolist(),
        "open_set_share": 0.0,
        "n_votes": 3,
        "entropy": float(-(positive * np.log(positive)).sum()),
        "au": np.linspace(0, 1, len(ACTION_UNITS)).round(3).tolist(),
        "valence": 0.5,
        "arousal": None,
        "label_quality": round(1 - number % 40 / 40, 3),
        "is_label_issue": number % 7 == 3,
        "open_set_score": round(1 - number % 50 / 50, 3),
        "is_open_set": number % 9 == 4,
        "duplicate_of": None,
        "source": "real",
        "licence": "CC-BY-4.0",
    }
