"""Write ``weights/default/MODEL_CARD.md``: ``python -m synthesis.training.model_card
--benchmark synthesis.json``.

Every number comes from the record beside the weights or from the benchmark's results file; both
must speak of the same weights.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from synthesis.pipeline import DEFAULT
from synthesis.training.export import RECORD
from warehouse.errors import ModelError
from warehouse.storage import atomic
from warehouse.vocabulary import ACTION_UNITS

LOOKED = "looked.md"
"""Beside the weights: what a person saw on the sheets, the only words here typed by hand."""

_LIMITS = """\
## Licence and data

Learned from FER2013 images with the FER+ votes. FER2013 was collected from the web for a
competition and is for **research use**; the people in it did not consent one by one. Use these
weights to try the pipeline and for research. For a product, train on faces you hold the rights to
(same command, `--faces`) or teach the adapter beside a Stable Diffusion whose licence fits.

## What it must not be used for

Not to show a real person doing what they did not do, not to pass as a photograph, not as evidence
of what anyone feels. Every face it draws is marked synthetic in tables, releases and cards.

## Limits

- 48 px, gray, ArcFace alignment: made for balancing small training sets, not for looking at.
- Action units are **AU proxies** (blendshape scores of a landmarker, scaled), not FACS codes.
- The pictures it learned from are unbalanced in age, skin tone and gender and carry no such
  labels; what it draws inherits that, and no figure per group can be given.
- A label of a synthetic face is a belief of raters, never a vote of a person.
"""


def card(record: dict[str, Any], benchmark: dict[str, Any], *, figures: str, looked: str) -> str:
    """The card's text.

    Args:
        record: ``training.json`` beside the weights.
        benchmark: ``synthesis.json`` of ``tests.benchmarks.synthesis``; its ``weights`` is the
            SHA-256 of the network it measured.
        figures: its Markdown, which goes in as it is.
        looked: what a person saw; begins with ``Looked at: <first 8 hex digits>``.

    Raises:
        ModelError: the benchmark or the words are of other weights.
    """
    sha = _network(record)
    if benchmark.get("weights") != sha:
        raise ModelError(
            f"a benchmark of the weights {sha[:8]}",
            got=f"one of {str(benchmark.get('weights'))[:8]}",
            hint="run `python -m tests.benchmarks.synthesis` first",
        )
    if sha[:8] not in looked.partition("\n")[0]:
        raise ModelError(
            f"words about the weights {sha[:8]}",
            got=looked.partition("\n")[0],
            hint=f"look at `risorius synth --sweep` and write {LOOKED} anew",
        )
    taught = set(record["taught"])
    return "\n".join(
        [
            f"# Model card: FaceAU {record['tier']}",
            "",
            "A small diffusion model in pixel space that draws aligned faces showing the action "
            "units and the expression asked for. Written by "
            "`python -m synthesis.training.model_card`; no number here was typed.",
            "",
            *_table(record),
            "",
            "Taught units: " + _names(unit for unit in ACTION_UNITS if unit.number in taught),
            "",
            "**Not taught**, because nothing in the data measures them (asking for one warns and "
            "leaves it unknown): "
            + _names(unit for unit in ACTION_UNITS if unit.number not in taught),
            "",
            figures.replace("# ", "## ", 1).strip(),
            "",
            "## What a person saw",
            "",
            looked.strip(),
            "",
            _LIMITS,
        ]
    )


def _network(record: dict[str, Any]) -> str:
    return next(sha for name, sha in record["sha256"].items() if name.startswith("unet/"))


def _table(record: dict[str, Any]) -> list[str]:
    recipe = record["recipe"]
    rows = {
        "learned from": f"{record['learned']} faces of FER+ train ({record['held_out']} set aside; "
        "near copies of FER+ valid left out)",
        "training": f"{record['steps']} steps of {recipe['batch']} = {record['faces_seen']} faces "
        f"in {record['minutes']} minutes on {record['cpus']} cores ({record['device']}, "
        f"{record['precision']}, {record['threads']} threads, shared with other work), "
        f"{record['date']}",
        "guide": f"`{record['guide']}`, weight {recipe['guide_weight']} on "
        f"{recipe['guide_share']:.0%} of a batch",
        "loss on faces set aside": f"{record['held_loss']:.4f}",
        "weights": f"{record['bytes'] / 1e6:.1f} MB",
        "SHA-256 of the network": f"`{_network(record)}`",
    }
    return ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())]


def _names(units: Any) -> str:
    return ", ".join(f"{unit.code} {unit.name}" for unit in units) or "none"


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
        looked=(options.weights / LOOKED).read_text(),
    )
    atomic.write_text(options.weights / "MODEL_CARD.md", text)
    print(f"wrote MODEL_CARD.md of {options.weights.name}")


if __name__ == "__main__":
    main()
