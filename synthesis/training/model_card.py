"""Write the model card of the generator.

Run ``python -m synthesis.training.model_card --benchmark FILE``.

Every number comes from the record beside the weights or from the benchmark's results file. Both
must be about the same weights.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from synthesis.pipeline import DEFAULT
from synthesis.training.export import RECORD
from warehouse.storage import atomic
from warehouse.training.model_card import check_same_weights, table, unit_names
from warehouse.vocabulary import AU_INDEX

REVIEW = "QUALITATIVE_REVIEW.md"
"""File beside the weights: description of the sheets, written by hand."""

_HINTS = (
    "run `python -m tests.benchmarks.synthesis` first",
    f"look at `risorius synth --sweep` and write {REVIEW} again",
)

_LIMITS = """\
## Licence and data

Trained on FER2013 images with the FER+ votes. FER2013 was collected from the web for a
competition and is for **research use**; the people in it did not consent one by one. Use these
weights to try the pipeline and for research. For a product, train on faces you hold the rights to
(same command, `--faces`) or train the adapter of a Stable Diffusion whose licence permits it.

## What it must not be used for

Not to show a real person doing what they did not do, not to pass as a photograph, not as evidence
of what anyone feels. Every face it generates is marked synthetic in tables, releases and cards.

## Limits

- 48 px, gray, ArcFace alignment: made for balancing small training sets, not for viewing.
- Action units are **AU proxies** (blendshape scores of a landmarker, scaled), not FACS codes.
- The training pictures are unbalanced in age, skin tone and gender and have no such labels. Its
  faces inherit that, and no figure per group can be given.
- A label of a synthetic face is a prediction of raters, never a vote of a person.
"""


def card(record: dict[str, Any], benchmark: dict[str, Any], *, figures: str, review: str) -> str:
    """Write the card's text.

    Args:
        record: ``training.json`` beside the weights.
        benchmark: ``synthesis.json`` of ``tests.benchmarks.synthesis``; its ``weights`` is the
            SHA-256 of the network it measured.
        figures: its Markdown, which is included unchanged.
        review: description of the sheets; begins with ``Looked at: <first 8 hex digits>``.

    Raises:
        ModelError: the benchmark or the review is about other weights.
    """
    sha, supported = _network_sha(record), set(record["taught"])
    check_same_weights(
        sha, measured=benchmark.get("weights"), review=review, hints=_HINTS, short=sha[:8]
    )
    return "\n".join(
        [
            f"# Model card: FaceAU {record['tier']}",
            "",
            "A small diffusion model in pixel space that generates aligned faces with given "
            "action units and expression. Written by `python -m synthesis.training.model_card`; "
            "all numbers are generated.",
            "",
            *table({"": _rows(record)}),
            "",
            "Supported units: " + unit_names(unit for unit in AU_INDEX if unit in supported),
            "",
            "**Unsupported**, because nothing in the data measures them (a request for one warns "
            "and leaves it unknown): "
            + unit_names(unit for unit in AU_INDEX if unit not in supported),
            "",
            figures.replace("# ", "## ", 1).strip(),
            "",
            "## Qualitative review",
            "",
            review.strip(),
            "",
            _LIMITS,
        ]
    )


def _network_sha(record: dict[str, Any]) -> str:
    return next(sha for name, sha in record["sha256"].items() if name.startswith("unet/"))


def _rows(record: dict[str, Any]) -> dict[str, str]:
    recipe = record["recipe"]
    return {
        "trained on": f"{record['learned']} faces of FER+ train ({record['held_out']} held out; "
        "near copies of FER+ valid left out)",
        "training": f"{record['steps']} steps of {recipe['batch']} = {record['faces_seen']} faces "
        f"in {record['minutes']} minutes on {record['cpus']} cores ({record['device']}, "
        f"{record['precision']}, {record['threads']} threads, shared with other work), "
        f"{record['date']}",
        "guidance rater": f"`{record['guide']}`, weight {recipe['guide_weight']} on "
        f"{recipe['guide_share']:.0%} of a batch",
        "loss on held-out faces": f"{record['held_loss']:.4f}",
        "weights": f"{record['bytes'] / 1e6:.1f} MB",
        "SHA-256 of the network": f"`{_network_sha(record)}`",
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m synthesis.training.model_card", description=__doc__
    )
    parser.add_argument("--benchmark", type=Path, required=True, help="results/synthesis.json")
    parser.add_argument("--weights", type=Path, default=DEFAULT)
    options = parser.parse_args(arguments)
    text = card(
        json.loads((options.weights / RECORD).read_text()),
        json.loads(options.benchmark.read_text()),
        figures=options.benchmark.with_suffix(".md").read_text(),
        review=(options.weights / REVIEW).read_text(),
    )
    atomic.write_text(options.weights / "MODEL_CARD.md", text)
    print(f"wrote MODEL_CARD.md of {options.weights.name}")


if __name__ == "__main__":
    main()
