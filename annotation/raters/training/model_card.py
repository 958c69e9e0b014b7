"""Write ``weights/MODEL_CARD.md``: ``python -m annotation.raters.training.model_card
--benchmark rater.json``.

Every number comes from the JSON beside the weights or from the benchmark's results file; both
must speak of the same weights.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from annotation.raters.onnx_rater import SHIPPED, read_card, weights_of
from warehouse.errors import ModelError
from warehouse.storage import atomic
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
- `expression` imitates the *share of votes* and is therefore modest about the plurality; ask
  `Ratings.plurality` for that.
- Valence and arousal are not offered: nothing in the data says them.
- Probabilities for pictures a rater was trained on are in-sample and make audits look too good.
  Which pictures those are can be computed again by the rule above; for FER+ itself take
  `annotation.raters.training.out_of_sample`.
- Each rater learned from half of the pictures, so that one can judge what the other guided. A
  rater for ratings alone may learn from all of them (`--part 1/1`).

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
    """The card's text.

    Args:
        served: the JSON beside the weights of each rater, by name.
        benchmark: ``rater.json`` of ``tests.benchmarks.rater``.
        figures: its Markdown, which goes in as it is.
        failures: what a person saw on the faces the raters are most wrong about; begins with
            ``Looked at: <rater ids>``.

    Raises:
        ModelError: the benchmark or the failures are of other weights.
    """
    for name, one in served.items():
        rater_id = f"machine-{one['model']}-{one['sha256'][:8]}"
        measured = benchmark.get(name, {}).get("rater_id")
        if measured != rater_id:
            raise ModelError(
                f"a benchmark of {rater_id}",
                got=f"one of {measured}",
                hint="run `python -m tests.benchmarks.rater` first",
            )
        if rater_id not in failures.partition("\n")[0]:
            raise ModelError(
                f"failures of {rater_id}",
                got=failures.partition("\n")[0],
                hint="look at `tests.benchmarks.rater --gallery DIR` and describe them anew",
            )
    main = served["default"]
    lines = [
        "# Model card: the machine raters",
        "",
        "Small networks that look at an aligned face and give a distribution over eight "
        "expressions, the mass of `unknown` and `not_a_face`, AU proxies and a feature of 256 "
        "numbers. `default` rates, orders the queue, feeds the audits and may guide synthesis. "
        "`judge` has another architecture and learned from the other half of the pictures with "
        "another seed; it only ever judges. No picture of one half has a near copy in the other, "
        "so for every training picture one of the two is out of sample "
        "(`python -m annotation.raters.training.out_of_sample`). "
        "Written by `python -m annotation.raters.training.model_card`; no number here was typed.",
        "",
        *_table(served),
        "",
        f"Rule for what was learned from: {main['trained_on']['rule']}.",
        "",
        figures.replace("# Machine raters on FER+ valid", "## FER+ valid").strip(),
        "",
        "## Failures, in words",
        "",
        failures.strip(),
        "",
        _LIMITS,
        f"Unreliable, reported but in no mean: {_names(main['unreliable_action_units'])}. "
        "Left out because the landmarker never moves their shapes (99th percentile below 0.001): "
        f"{_names(main['silent_action_units'])}. Left out because no undisputed shape stands "
        f"for them: {_names(_unknown(main))}.",
        "",
    ]
    return "\n".join(lines)


def _table(served: dict[str, dict[str, Any]]) -> list[str]:
    rows = [_column(one) for one in served.values()]
    return [
        "| | " + " | ".join(f"`{name}`" for name in served) + " |",
        "|---" * (len(rows) + 1) + "|",
        *(f"| {title} | " + " | ".join(row[title] for row in rows) + " |" for title in rows[0]),
    ]


def _column(one: dict[str, Any]) -> dict[str, str]:
    images, recipe = one["trained_on"], one["recipe"]
    return {
        "rater id": f"`machine-{one['model']}-{one['sha256'][:8]}`",
        "architecture": f"{one['shape']['architecture']}, see `annotation/raters/network.py`",
        "parameters": f"{one['parameters'] / 1e6:.2f} million",
        "input": f"{one['side']} px gray out of the pipeline's aligned crop, standardised, "
        "averaged with its mirror",
        "learned from": f"{images['learned']} images of FER+ train, part {images['part']}",
        "dropped": f"{images['dropped_as_repeated']} repeated, or near copies of FER+ valid",
        "set aside for calibration": f"{images['held_out']} images of the same part",
        "face found": f"{images['face_found']:.1%}; the others enter as full frames",
        "training": f"{one['steps']} steps of {recipe['batch']}, seed {recipe['seed']}, "
        f"{one['minutes']} minutes on {one['hardware']} ({one['device']}, {one['precision']}, "
        f"shared with other work), {one['date']}, commit {one['commit']}",
        "temperature": f"{one['temperature']}, fitted to the votes of the images set aside",
        "plurality power": f"{one['plurality_power']}, fitted to their pluralities",
        "SHA-256": f"`{one['sha256']}`",
    }


def _unknown(served: dict[str, Any]) -> list[int]:
    mentioned = {*served["action_units"], *served["silent_action_units"]}
    return [unit.number for unit in ACTION_UNITS if unit.number not in mentioned]


def _names(units: list[int]) -> str:
    names = {unit.number: unit.name for unit in ACTION_UNITS}
    return ", ".join(f"AU{unit} {names[unit]}" for unit in units) or "none"


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
