"""Test measures of occlusion on masks and hands drawn over FER+.

A classifier learns from two kinds of cover and is asked about the third on other faces: what it
says of a kind it never saw is what it would say of the next scarf. Nothing here passes .85, so
the column ``occlusion`` stays null.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pipeline.faces import align, detect
from tests.benchmarks.ingest_sharpness import scenes

Cover = Callable[[np.ndarray, np.random.Generator], np.ndarray]

WANTED = 0.85
_PICTURES = 330
_SIDE = 48


def measure(shared: Path) -> dict[str, Any]:
    """Return AUROC of covered against clean faces per measure and kind."""
    clean = _clean(shared)
    random = np.random.default_rng(0)
    sets = {"clean": clean} | {
        kind: [cover(crop, random) for crop in clean] for kind, cover in _covers().items()
    }
    features = {kind: _features(crops) for kind, crops in sets.items()}
    rows = {
        f"{what}, {how}": _held_out({kind: each[what] for kind, each in features.items()}, make)
        for what in features["clean"]
        for how, make in _classifiers().items()
    }
    return {"rows": rows, "faces": len(clean), "wanted": WANTED}


def lines(part: dict[str, Any]) -> list[str]:
    """The result as Markdown."""
    kinds = list(next(iter(part["rows"].values())))
    best = max(min(row[kind] for kind in kinds if kind != "seen") for row in part["rows"].values())
    verdict = "" if best >= part["wanted"] else ": **missed**, the column `occlusion` stays null"
    return [
        "### Covered faces, measured without a model for it",
        "",
        f"Masks, sunglasses and hands drawn over {part['faces']} faces of FER+, half of them to "
        "learn from. AUROC of covered against clean, for the kind of cover that was left out of "
        f"learning; `seen`: all kinds learnt. Wanted: {part['wanted']:.2f} for every kind left "
        f"out; the best way reaches {best:.2f}{verdict}.",
        "",
        "| from | " + " | ".join(kinds) + " |",
        "|---" * (len(kinds) + 1) + "|",
        *(
            f"| {name} | " + " | ".join(f"{row[kind]:.2f}" for kind in kinds) + " |"
            for name, row in part["rows"].items()
        ),
    ]


def _covers() -> dict[str, Cover]:
    return {"mask": _mask, "sunglasses": _sunglasses, "hand": _hand}


def _mask(crop: np.ndarray, random: np.random.Generator) -> np.ndarray:
    top, gray = int(random.integers(115, 140)), int(random.integers(30, 235))
    wobble = random.integers(-8, 8, 4)
    corners = [(30 + wobble[0], top + wobble[1]), (112, top - 15), (194 + wobble[2],
               top + wobble[3]), (175, 224), (50, 224)]  # fmt: skip
    covered = cv2.fillPoly(crop.copy(), [np.array(corners, np.int32)], (gray,) * 3)
    for fold in range(3):
        y = top + 25 + 22 * fold
        cv2.line(covered, (45, y), (180, y), (int(gray * 0.85),) * 3, 2)
    return cv2.GaussianBlur(covered, (0, 0), 1)


def _sunglasses(crop: np.ndarray, random: np.random.Generator) -> np.ndarray:
    covered, gray = crop.copy(), int(random.integers(5, 50))
    for x in (76, 147):
        axes = (int(random.integers(26, 36)), int(random.integers(18, 28)))
        cv2.ellipse(covered, (x, 104), axes, 0, 0, 360, (gray,) * 3, -1)
    cv2.line(covered, (95, 98), (128, 98), (gray,) * 3, 5)
    cv2.ellipse(covered, (70, 96), (8, 4), -30, 0, 360, (gray + 60,) * 3, -1)
    return cv2.GaussianBlur(covered, (0, 0), 1)


def _hand(crop: np.ndarray, random: np.random.Generator) -> np.ndarray:
    covered = crop.copy()
    skin = float(np.median(crop[80:150, 60:160])) * random.uniform(0.8, 1.2)
    x, y, turn = random.integers(50, 175), random.integers(120, 185), random.uniform(-50, 50)
    along = 24 * np.array([np.cos(np.radians(turn)), np.sin(np.radians(turn))])
    for finger in range(4):
        at = (int(x - 36 + finger * along[0]), int(y + finger * along[1]))
        gray = int(np.clip(skin - 8 * finger, 0, 255))
        cv2.ellipse(covered, at, (12, 50), turn, 0, 360, (gray,) * 3, -1)
        cv2.ellipse(covered, at, (12, 50), turn, 0, 360, (int(gray * 0.6),) * 3, 2)
    return cv2.GaussianBlur(covered, (0, 0), 1.2)


def _features(crops: list[np.ndarray]) -> dict[str, np.ndarray]:
    from annotation import raters

    rated = raters.load("default").rate(np.stack(crops))
    numbers = np.stack([_numbers(crop) for crop in crops])
    feature = rated.feature.astype(np.float64)
    return {
        "the rater's open set": rated.open_set.max(axis=1, keepdims=True),
        "halves, sides, blocks": numbers,
        "the rater's features": feature,
        "both": np.hstack([numbers, feature]),
    }


def _numbers(crop: np.ndarray) -> np.ndarray:
    """Compare halves of the face, and detail and light of 25 blocks."""
    small = cv2.resize(crop, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    gray = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float64)
    detail = np.abs(cv2.Laplacian(gray, cv2.CV_64F))
    middle, upper, lower = gray[:, 8:40], gray[10:26, 8:40], gray[28:44, 8:40]
    spread = middle.std() + 3

    def more(one: np.ndarray, other: np.ndarray) -> float:
        return float(np.log(one.mean() + 0.5) - np.log(other.mean() + 0.5))

    def blocks(values: np.ndarray) -> np.ndarray:
        return values[4:44, 4:44].reshape(5, 8, 5, 8).mean(axis=(1, 3)).ravel() / spread

    return np.concatenate(
        [
            [
                np.abs(middle - middle[:, ::-1]).mean() / spread,
                (lower.std() + 3) / (upper.std() + 3),
                (lower.mean() - upper.mean()) / spread,
                more(detail[28:44, 8:40], detail[10:26, 8:40]),
                abs(more(detail[10:44, 8:24], detail[10:44, 24:40])),
            ],
            blocks(detail),
            blocks(gray - middle.mean()),
        ]
    )


def _classifiers() -> dict[str, Callable[[], Any]]:
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return {
        "logistic": lambda: make_pipeline(
            StandardScaler(), LogisticRegression(C=0.01, max_iter=2000, class_weight="balanced")
        ),
        "forest": lambda: RandomForestClassifier(
            200, min_samples_leaf=3, class_weight="balanced", random_state=0
        ),
    }


def _held_out(sets: dict[str, np.ndarray], make: Callable[[], Any]) -> dict[str, float]:
    half = len(sets["clean"]) // 2
    kinds = [kind for kind in sets if kind != "clean"]
    found = {}
    for held in (*kinds, None):
        asked = [held] if held else kinds
        learnt = np.concatenate([sets[kind][:half] for kind in sets if kind != held])
        model = make().fit(learnt, np.arange(len(learnt)) >= half)
        clean, *covered = (
            model.predict_proba(sets[kind][half:])[:, 1] for kind in ("clean", *asked)
        )
        found[held or "seen"] = _auroc(clean, np.concatenate(covered))
    return found


def _auroc(clean: np.ndarray, covered: np.ndarray) -> float:
    from sklearn.metrics import roc_auc_score

    truth = np.concatenate([np.zeros(len(clean)), np.ones(len(covered))])
    return float(roc_auc_score(truth, np.concatenate([clean, covered])))


def _clean(shared: Path) -> list[np.ndarray]:
    detector = detect.load(threshold=0.6)
    found = []
    for place, image in scenes(shared, faces=_PICTURES):
        points = detector.detect(image)[1]
        if place == "FER+" and len(points):
            found.append(align.align(image, points[0]))
    return found
