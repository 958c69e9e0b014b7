"""Page of ``tests.benchmarks.rater``: figures, curves, worst faces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from annotation import raters
from annotation.raters.training import targets
from tests.benchmarks.ferplus import votes_and_proxies
from warehouse.vocabulary import ACTION_UNITS, EXPRESSIONS

RESAMPLES = 1000
SPEED_BATCH = 64
SPEED_ROUNDS = 12

WANTED = {
    "accuracy": ("accuracy, plurality protocol", ">=", 0.87),
    "accuracy_official": ("accuracy, official protocol", ">=", 0.89),
    "macro_f1": ("macro-F1, plurality protocol", ">=", 0.69),
    "divergence": ("mean KL(votes ‖ rater), nats, all images, 10 answers", "<=", 0.29),
    "calibration_plurality": ("ECE, 15 bins, of `plurality` against the plurality", "<=", 0.03),
    "calibration_votes": ("ECE, 15 bins, of `expression` against shares of votes", "<=", 0.03),
    "au": ("AU proxies: mean Pearson r over reliable units", ">=", 0.65),
    "megabytes": ("weights on disk, MB", "<=", 12),
    "faces_per_s": (f"faces per second, batch {SPEED_BATCH}, two threads, median", ">=", 200),
}


def page(results: dict[str, dict[str, Any]]) -> str:
    """Write the Markdown of all raters' figures."""
    some = next(iter(results.values()))
    lines = [
        "# Machine raters on FER+ valid",
        "",
        f"{some['date']}, commit {some['commit']}, {some['hardware']}, {some['provider']}. "
        "Written by `python -m tests.benchmarks.rater`.",
        "",
        *(
            f"- `{name}` is `{one['rater_id']}`: {one['architecture']}, "
            f"{one['parameters'] / 1e6:.2f} million parameters, trained on "
            f"{one['learned_from']} images (part {one['part']})"
            for name, one in results.items()
        ),
        "",
        "Two protocols. *Plurality*: the answer with the most of ten votes; ties, `unknown` and "
        f"`not_a_face` left out, which leaves {some['images_of_the_protocol']} of "
        f"{some['images']} images. *Official*: the published reader of FER+ (Barsoum et al., "
        "2016) drops single votes and wants more than half of the rest, which leaves "
        f"{some['images_of_the_official_protocol']}, without the hardest. Published figures "
        "follow the official one. The pipeline finds a face in "
        f"{some['face_found']:.1%} of the images; of the others the whole frame is rated. Brackets "
        f"hold 95 % intervals, {RESAMPLES} bootstrap resamples of images.",
        "",
        *_table("figure | wanted", results, [_wanted(key, results) for key in WANTED]),
        "",
        f"The entropy of the votes is {some['vote_entropy']:.3f} nats, against "
        f"{some['vote_entropy_train']:.3f} in train: **these images are easier than those the "
        "raters learned from**, and every figure on this page flatters by that much. "
        "Cross-entropy cannot be lower than the entropy, and KL is the rest. Ten votes are a "
        "sample, so even a perfect rater has some KL. "
        "`expression` predicts shares of votes and is compared with them; `plurality` predicts "
        "the probability of being the plurality and is compared with that.",
        "",
        f"Speed, median of {SPEED_ROUNDS} alternating rounds, from 224 px crops, with graying and "
        "resizing, and a ResNet-18 at 224 px in the same run: "
        + "; ".join(
            f"`{name}` {one['faces_per_s']:.0f} faces/s (best {one['faces_per_s_best']:.0f}) "
            f"to {one['resnet18_per_s']:.0f}, ratio {one['ratio']:.1f}"
            for name, one in results.items()
        )
        + ".",
        *_before(results),
    ]
    for name, one in results.items():
        lines += ["", f"## `{name}` by expression", "", *_classes(one), "", *_curve(one)]
    units = sorted({unit for one in results.values() for unit in one["au"]}, key=int)
    lines += ["", "## AU proxies, Pearson r", ""]
    lines += _table("AU proxy", results, [_unit(unit, results) for unit in units])
    return "\n".join(lines) + "\n"


def _before(results: dict[str, dict[str, Any]]) -> list[str]:
    """Compare each rater with the weights that it replaced."""
    lines = []
    for name, one in results.items():
        old = one.get("before")
        if not old:
            continue
        if not lines:
            lines = ["", "## What changed", "", "| rater | figure | before | now | |"]
            lines += ["|---|---|---|---|---|"]
        now = {key: entry["value"] for key, entry in one["figures"].items()}
        rows = [(WANTED[key][0], WANTED[key][1], old["figures"][key], now[key])
                for key in WANTED if key in old["figures"] and key in now]  # fmt: skip
        rows += [("faces per second", ">=", old["faces_per_s"], one["faces_per_s"])]
        rows += [(f"recall of {row['expression']}", ">=", old["recall"][row["expression"]],
                  row["recall"]) for row in one["classes"]]  # fmt: skip
        for title, sense, then, value in rows:
            worse = value < then if sense == ">=" else value > then
            form = ".0f" if title == "faces per second" else ".3f"
            mark = "worse" if worse else ""
            lines.append(f"| `{name}` | {title} | {then:{form}} | {value:{form}} | {mark} |")
    return lines


def _table(head: str, results: dict[str, Any], rows: list[str]) -> list[str]:
    columns = " | ".join([head, *(f"`{name}`" for name in results)])
    return [f"| {columns} |", "|" + "---|" * (columns.count(" | ") + 1), *rows]


def _wanted(key: str, results: dict[str, dict[str, Any]]) -> str:
    title, sense, bound = WANTED[key]
    cells = []
    for one in results.values():
        entry = one["figures"].get(key, {"value": one.get(key)})
        value, form = entry["value"], ".0f" if key == "faces_per_s" else ".3f"
        met = value >= bound if sense == ">=" else value <= bound
        interval = f" [{entry['low']:.3f}, {entry['high']:.3f}]" if "low" in entry else ""
        cells.append(f"{value:{form}}{interval}" + ("" if met else " **missed**"))
    sign = "≥" if sense == ">=" else "≤"
    return f"| {title} | {sign} {bound:g} | " + " | ".join(cells) + " |"


def _classes(one: dict[str, Any]) -> list[str]:
    head = "expression | faces | recall | precision | F1 | mean share: votes | rater"
    lines = [f"| {head} | most often taken for |", "|---|---|---|---|---|---|---|---|"]
    for row in one["classes"]:
        lines.append(
            f"| {row['expression']} | {row['faces']} | {_with_ends(row, 'recall')} "
            f"| {row['precision']:.2f} | {_with_ends(row, 'f1')} | {row['mean_share_votes']:.3f} "
            f"| {row['mean_share_rater']:.3f} | {row['taken_for']} |"
        )
    return lines


def _with_ends(row: dict[str, Any], name: str) -> str:
    low, high = row[f"{name}_interval"]
    return f"{row[name]:.2f} [{low:.2f}, {high:.2f}]"


def _curve(one: dict[str, Any]) -> list[str]:
    return [
        "| `plurality` of the first choice | is the plurality | faces |",
        "|---|---|---|",
        *(
            f"| {r['confidence']:.2f} | {r['right']:.2f} | {r['faces']} |"
            for r in one["calibration"]
        ),
    ]


def _unit(unit: str, results: dict[str, dict[str, Any]]) -> str:
    name = next(known.name for known in ACTION_UNITS if known.number == int(unit))
    mark = " (unreliable, not in the mean)" if int(unit) in targets.UNRELIABLE else ""
    cells = " | ".join(f"{one['au'].get(unit, float('nan')):.2f}" for one in results.values())
    return f"| {unit} {name}{mark} | {cells} |"


def gallery(name: str, results_of: Path, *, crops: np.ndarray, parquet: Path) -> None:
    """Write a sheet of a rater's worst faces; it must not be committed.

    One row per expression: of the faces with at least seven of ten votes for it, the twelve to
    which the rater gives the lowest probability.
    """
    import cv2

    votes, _, _ = votes_and_proxies(parquet)
    ratings = raters.load(name).rate(crops)
    sheet = np.full((len(EXPRESSIONS) * 118, 12 * 100, 3), 255, dtype=np.uint8)
    for row, expression in enumerate(EXPRESSIONS):
        sure = np.flatnonzero(votes[:, row] >= (7 if expression != "contempt" else 5))
        worst = sure[np.argsort(ratings.expression[sure, row])][:12]
        for column, face in enumerate(worst):
            top, left = row * 118, column * 100
            sheet[top : top + 98, left : left + 98] = cv2.resize(crops[face], (98, 98))
            said = EXPRESSIONS[ratings.expression[face].argmax()]
            text = f"{expression[:5]}>{said[:5]} {ratings.expression[face].max():.2f}"
            cv2.putText(sheet, text, (left, top + 112), 0, 0.34, (0, 0, 0), 1, cv2.LINE_AA)
    results_of.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(results_of / f"failures_{name}.png"), sheet[:, :, ::-1])
