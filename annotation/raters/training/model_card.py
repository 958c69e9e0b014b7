"""Write the model card of the raters.

Run ``python -m annotation.raters.training.model_card --benchmark FILE``.

Every number comes from the JSON beside the weights or from the benchmark's results file. Both
must be about the same weights.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from annotation.raters.onnx_rater import SHIPPED, rater_id_of, read_card, weights_of
from warehouse.storage import atomic
from warehouse.training.model_card import check_same_weights, table, unit_names
from warehouse.vocabulary import AU_INDEX

_HINTS = (
    "run `python -m tests.benchmarks.rater` first",
    "describe the pictures of `tests.benchmarks.rater --gallery DIR` again",
)

_LIMITS = """\
## Licence and data

Trained on FER2013 images with the FER+ votes. FER2013 was collected from the web for a
competition and is for **research use**; the people in it did not consent one by one. The code is
under this project's licence, but weights trained on such data should be used for research and
for setting up a pipeline. For a product, train on data you hold the rights to (same command) or
plug in another rater (`RISORIUS_RATER=package.module:name`).

## What it must not be used for

Not for decisions about people: recruitment, schooling, policing, borders, insurance, health, lie
detection, attention at work. It predicts what ten viewers might call a picture of a face, not what
the person feels. Not for identifying anyone. Its probabilities are for ordering the work of
annotators.

## Limits

- FER+ pictures are 48 px, gray, posed or from the press. Skin tone, age and gender are unlabelled
  and unbalanced, so no figure per group can be given.
- Every figure above is on FER+ valid, whose votes agree more than those of train. On pictures as
  hard as the training pictures, expect an accuracy about one point lower.
- Rare answers (disgust, contempt, fear) are seldom its first choice, see the rows above. Use the
  distribution, not the first choice.
- Hard compression and strong blur do not become `unknown`: on a heavily distorted film it leaned
  towards surprise. The sharpness gate before it should drop such faces.
- An open mouth while speaking looks like surprise.
- `expression` predicts the *share of votes*, which is below the probability of being the
  plurality. Use `Ratings.plurality` for that.
- Valence and arousal are not offered: the data has no labels for them.
- Probabilities for pictures a rater was trained on are in-sample and make audits look too good.
  The rule above says which pictures those are. For FER+ itself use
  `annotation.raters.training.out_of_sample`.
- `default` was distilled partly from `guide`. Faces that `guide` guided are therefore evaluated by
  `judge` alone.

## AU proxies

Targets are blendshape scores of MediaPipe's face landmarker, an animation rig's weights, mapped
to units (`annotation/raters/training/targets.py`) and divided by their 99th percentile over the
training set. They rank faces by an action; they are **not FACS codes** and no FACS coder has
checked them.
"""


def card(
    served: dict[str, dict[str, Any]],
    benchmark: dict[str, dict[str, Any]],
    *,
    figures: str,
    failures: str,
) -> str:
    """Write the card's text.

    Args:
        served: the JSON beside the weights of each rater, by name.
        benchmark: ``rater.json`` of ``tests.benchmarks.rater``.
        figures: its Markdown, which is included unchanged.
        failures: description of the faces with the largest errors; begins with
            ``Looked at: <rater ids>``.

    Raises:
        ModelError: the benchmark or the failures are about other weights.
    """
    for name, one in served.items():
        check_same_weights(
            rater_id_of(one),
            measured=benchmark.get(name, {}).get("rater_id"),
            review=failures,
            hints=_HINTS,
        )
    main = served["default"]
    units, silent = main["action_units"], main["silent_action_units"]
    lines = [
        "# Model card: the machine raters",
        "",
        "Small networks that rate an aligned face: a distribution over eight expressions, the "
        "mass of `unknown` and `not_a_face`, AU proxies and a feature of 256 numbers. `default` "
        "learned from all training pictures; it rates faces, orders the queue and feeds the "
        "audits. `guide` learned from one half of them and guides synthesis. `judge` has another "
        "architecture and seed and learned from the other half; it only evaluates. Few pictures "
        "of one half have a near copy in the other (the rule below finds 84 % of the pairs), so "
        "nearly every training picture is out of sample for `guide` or for `judge` "
        "(`python -m annotation.raters.training.out_of_sample`). "
        "Written by `python -m annotation.raters.training.model_card`; all numbers are generated.",
        "",
        *table({f"`{name}`": _column(one) for name, one in served.items()}),
        "",
        f"Rule for the training pictures: {main['trained_on']['rule']}.",
        "",
        figures.replace("# Machine raters on FER+ valid", "## FER+ valid").strip(),
        "",
        "## Failures, in words",
        "",
        failures.strip(),
        "",
        _LIMITS,
        f"Unreliable, reported but in no mean: {unit_names(main['unreliable_action_units'])}. "
        "Left out because the landmarker never moves their shapes (99th percentile below 0.001): "
        f"{unit_names(silent)}. Left out because no undisputed shape stands for them: "
        f"{unit_names(unit for unit in AU_INDEX if unit not in {*units, *silent})}.",
        "",
    ]
    return "\n".join(lines)


def _column(one: dict[str, Any]) -> dict[str, str]:
    images, recipe = one["trained_on"], one["recipe"]
    teachers = ", ".join(f"`{rater_id}`" for rater_id in images.get("teachers", []))
    return {
        "rater id": f"`{rater_id_of(one)}`",
        "architecture": f"{one['shape']['architecture']}, see `annotation/raters/network.py`",
        "parameters": f"{one['parameters'] / 1e6:.2f} million",
        "input": f"{one['side']} px gray of the pipeline's aligned crop, standardised, "
        "averaged with its mirror",
        "trained on": f"{images['learned']} images of FER+ train, part {images['part']}",
        "shipped teachers": teachers or "none",
        "dropped": f"{images['dropped_as_repeated']} duplicates, or near copies of FER+ valid",
        "held out for calibration": f"{images['held_out']} images of the same part",
        "face found": f"{images['face_found']:.1%}; of the others the whole frame is used",
        "training": f"{one['steps']} steps of {recipe['batch']}, seed {recipe['seed']}, "
        f"{one['minutes']} minutes on {one['hardware']} ({one['device']}, {one['precision']}, "
        f"shared with other work), {one['date']}, commit {one['commit']}",
        "temperature": f"{one['temperature']}, fitted to the votes of the held-out images",
        "plurality power": f"{one['plurality_power']}, fitted to their pluralities",
        "SHA-256": f"`{one['sha256']}`",
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m annotation.raters.training.model_card", description=__doc__
    )
    parser.add_argument("--benchmark", type=Path, required=True, help="results/rater.json")
    options = parser.parse_args(arguments)
    folder = weights_of("default").parent
    text = card(
        {name: read_card(weights_of(name)) for name in SHIPPED},
        json.loads(options.benchmark.read_text()),
        figures=options.benchmark.with_suffix(".md").read_text(),
        failures=(folder / "failures.md").read_text(),
    )
    path = folder / "MODEL_CARD.md"
    atomic.write_text(path, text)
    print(f"wrote {path.name}")


if __name__ == "__main__":
    main()
