"""Write ``weights/MODEL_CARD.md``: ``python -m annotation.raters.card --benchmark rater.json``.

Every number comes from the JSON beside the weights or from the benchmark's results file; both
must speak of the same weights.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from annotation.raters.machine import read_card, weights_of
from warehouse import atomic
from warehouse.errors import ModelError
from warehouse.vocabulary import ACTION_UNITS

_LIMITS = """\
## Licence and data

Trained on FER2013 images with the FER+ votes. FER2013 was collected from the web for a
competition and is for **research use**; the people in it did not consent one by one. The code is
under this project's licence, but weights learned from such data should be used for research and
for setting a pipeline up. For a product, train on data you hold the rights to (same command) or
plug in another rater (`RISORIUS_RATER=package.module:name`).

## What it must not be used for

Not for decisions about people: hiring, schooling, policing, borders, insurance, health, lie
detection, attention at work. It says what ten viewers might call a picture of a face, not what
the person feels. Not for identifying anyone. Its probabilities are for ordering the work of
people who look for themselves.

## Limits

- FER+ pictures are 48 px, gray, posed or from the press; skin tone, age and gender are unlabelled
  and unbalanced, and no figure per group can be given.
- Rare answers (disgust, contempt, fear) are seldom its first choice; see the rows above. Use the
  distribution, not the first choice.
- Hard compression and strong blur do not turn into `unknown`: on a heavily distorted film it
  leaned towards surprise. The gate on sharpness in front of it should drop such faces.
- An open mouth while speaking looks like surprise.
- It imitates the *share of votes*. Against the plurality it is therefore under-confident.
- Valence and arousal are not offered: nothing in the data says them.
- Probabilities for pictures it was trained on are in-sample and make audits look too good. Which
  pictures those are can be computed again by the rule below. Fold models for honest probabilities
  on FER+ itself are not shipped.

## AU proxies

Targets are blendshape scores of MediaPipe's face landmarker, an animation rig's weights, mapped
to units (`annotation/raters/targets.py`) and divided by their 99th percentile over the training
set. They rank faces by an action; they are **not FACS codes** and no FACS coder has checked them.
"""


def card(served: dict[str, Any], benchmark: dict[str, Any], figures: str) -> str:
    """The card's text.

    Args:
        served: the JSON beside the weights.
        benchmark: ``rater.json`` of ``tests.benchmarks.rater``.
        figures: its Markdown, which goes in as it is.

    Raises:
        ModelError: the benchmark is of other weights.
    """
    rater_id = f"machine-{served['model']}-{served['sha256'][:8]}"
    if benchmark["rater_id"] != rater_id:
        raise ModelError(
            f"a benchmark of {rater_id}",
            got=f"one of {benchmark['rater_id']}",
            mend="run `python -m tests.benchmarks.rater` first",
        )
    images, recipe = served["trained_on"], served["recipe"]
    lines = [
        f"# Model card: `{rater_id}`",
        "",
        "A small network that looks at an aligned face and gives a distribution over eight "
        "expressions, the mass of `unknown` and `not_a_face`, AU proxies and a feature of 256 "
        "numbers. Written by `python -m annotation.raters.card`; no number here was typed.",
        "",
        "| | |",
        "|---|---|",
        f"| parameters | {served['parameters'] / 1e6:.2f} million |",
        f"| input | {served['side']} px gray out of the pipeline's aligned crop; each face "
        "standardised, the face and its mirror averaged |",
        f"| learned from | {images['learned']} images of FER+ train "
        f"({images['dropped_as_repeated']} dropped: also in valid, or repeated) |",
        f"| set aside for calibration | {images['held_out']} images of FER+ train |",
        f"| face found | {images['face_found']:.1%} of the training images; the others enter "
        "as full frames |",
        f"| training | {served['steps']} steps of {recipe['batch']} in {served['minutes']} minutes "
        f"on {served['hardware']} ({served['device']}, {served['precision']}, shared with other "
        f"work), {served['date']}, commit {served['commit']} |",
        f"| temperature | {served['temperature']}, fitted to the votes of the images set aside |",
        f"| SHA-256 | `{served['sha256']}` |",
        "",
        f"Rule for what was learned from: {images['rule']}.",
        "",
        figures.replace("# Machine rater on FER+ valid", "## FER+ valid").strip(),
        "",
        _LIMITS,
        f"Unreliable, reported but in no mean: {_names(served['unreliable_action_units'])}. "
        "Left out because the landmarker never moves their shapes (99th percentile below 0.001): "
        f"{_names(served['silent_action_units'])}. Left out because no undisputed shape stands "
        "for them: "
        f"{_names(_unknown(served))}.",
        "",
    ]
    return "\n".join(lines)


def _unknown(served: dict[str, Any]) -> list[int]:
    mentioned = {*served["action_units"], *served["silent_action_units"]}
    return [unit.number for unit in ACTION_UNITS if unit.number not in mentioned]


def _names(units: list[int]) -> str:
    names = {unit.number: unit.name for unit in ACTION_UNITS}
    return ", ".join(f"AU{unit} {names[unit]}" for unit in units) or "none"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m annotation.raters.card", description=__doc__)
    parser.add_argument("--benchmark", type=Path, required=True, help="results/rater.json")
    parser.add_argument("--weights", type=Path, default=weights_of("default"))
    options = parser.parse_args(arguments)
    text = card(
        read_card(options.weights),
        json.loads(options.benchmark.read_text()),
        options.benchmark.with_suffix(".md").read_text(),
    )
    path = options.weights.parent / "MODEL_CARD.md"
    atomic.write_text(path, text)
    print(f"wrote {path.name}")


if __name__ == "__main__":
    main()
