"""The Markdown of the numbers about synthesis."""

from __future__ import annotations

from typing import Any

from warehouse.vocabulary import ACTION_UNITS, EXPRESSIONS

STEEP = 0.3
"""Slope from which an eye sees that a unit follows its request."""

WANTED = (
    # title, key of the figure, sense, bound
    ("units with slope ≥ 0.3", "steep_units", ">=", 15),
    ("pooled AU response r, mean over reliable units", "au_response_pooled", ">=", 0.8),
    ("AU response r within a seed, mean over reliable units", "au_response", ">=", 0.6),
    ("swap accuracy (chance 0.5)", "swaps", ">=", 0.9),
    ("selectivity", "selectivity", ">=", 3.0),
    ("AU alone over AU with its expression, ratio of r", "au_alone_ratio", ">=", 0.8),
    ("judge agrees with the asked label over its accuracy, unguided", "over_off", ">=", 0.85),
    ("judge agrees with the asked label over its accuracy, guided", "over_on", ">=", 0.95),
    ("guidance: gain the guide sees less gain the judge sees", "honesty_gap", "<=", 0.10),
    ("train on synthetic over as many real, 1x, asked labels", "asked 1x", ">=", 0.75),
    ("train on synthetic over as many real, 1x, rectified labels", "rectified 1x", ">=", 0.75),
    ("train on synthetic over as many real, 5x, asked labels", "asked 5x", ">=", 0.92),
    ("train on synthetic over as many real, 5x, rectified labels", "rectified 5x", ">=", 0.92),
    ("real and synthetic over real alone, macro-F1", "gain", ">=", 0.015),
    ("Fréchet distance in the judge's features", "frechet", "<=", 6.0),
    ("KID in the judge's features", "kernel", "<=", 0.1),
    ("memorisation ratio", "memorisation", ">=", 0.9),
    ("seconds per image, 10 steps, batch 16, median", "seconds_per_image", "<=", 1.0),
)


def page(result: dict[str, Any]) -> str:
    """Return a table of figures with targets, and one table per part."""
    parts = (_head, _targets, _units, _expressions, _learning, _likeness, _annotators, _steps)
    return "\n".join(line for part in parts for line in [*part(result), ""]).rstrip() + "\n"


def figures(result: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of ``WANTED`` by key; None if not measured."""
    arms = {name: arm["accuracy"] for name, arm in result["learning"].items()}
    rivals = {name: arms.get("real 5x" if name.endswith("5x") else "real 1x") for name in arms}
    over = result.get("over_accuracy", {})
    likeness = result["likeness"]
    return {
        **result,
        **{
            name: value / rivals[name] if value and rivals[name] else None
            for name, value in arms.items()
        },
        "steep_units": sum(row["slope"] >= STEEP for row in result["units"].values()),
        "over_off": over.get("off"),
        "over_on": over.get("on"),
        "frechet": likeness["frechet"]["made"],
        "kernel": likeness["kernel"]["made"],
        "memorisation": likeness["memorisation"],
    }


def _head(result: dict[str, Any]) -> list[str]:
    ceiling = result["ceilings"]["accuracy"]
    said = ", ".join(f"{role} {value:.3f}" for role, value in ceiling.items())
    return [
        "# Synthesis: does a face show what was asked?",
        "",
        f"`{result['model']}`, {result['date']}, commit {result['commit']}, {result['hardware']}; "
        f"{result['minutes']} minutes with cached parts. Judge `{result['judge']}`, guide "
        f"`{result['guide']}`; the judge had no part in training, guidance or choice. Written by "
        "`python -m tests.benchmarks.synthesis`.",
        "",
        f"Accuracy of the raters on real faces of this size: {said}. No figure below can be "
        "expected to exceed what its reader can read. Action units are proxies, not FACS codes. "
        "Intervals: 95 %, bootstrap over seeds, pairs or images.",
    ]


def _targets(result: dict[str, Any]) -> list[str]:
    found = figures(result)
    lines = ["| figure | value | 95 % interval | wanted | met |", "|---|---|---|---|---|"]
    for title, key, sense, bound in WANTED:
        entry = found.get(key)
        value = entry["value"] if isinstance(entry, dict) else entry
        interval = f"{entry['low']:.3f} to {entry['high']:.3f}" if isinstance(entry, dict) else ""
        sign = "≥" if sense == ">=" else "≤"
        shown = "not measured" if value is None else f"{value:.3f}".removesuffix(".000")
        met = _met(value, sense, bound)
        lines.append(f"| {title} | {shown} | {interval} | {sign} {bound:g} | {met} |")
    unbiased = result["swaps_unbiased"]
    return [
        *lines,
        "",
        f"With the judge's bias cancelled, swap accuracy is {unbiased['value']:.3f} "
        f"({unbiased['low']:.3f} to {unbiased['high']:.3f}). Ten steps take "
        f"{result['ratio_to_five_times_the_steps']:.2f} of the time of fifty, in the same run.",
    ]


def _units(result: dict[str, Any]) -> list[str]:
    names = {str(unit.number): unit.name for unit in ACTION_UNITS}
    lines = [
        "| AU | r | 95 % interval | p | slope | pooled r | selectivity | r beside its expression "
        "| judge's r on real faces |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for unit, row in result["units"].items():
        ceiling = result["ceilings"]["au"].get(int(unit), result["ceilings"]["au"].get(unit))
        chosen = row["selectivity"]
        lines.append(
            f"| {unit} {names[unit]} | {row['r']['value']:.2f} | {row['r']['low']:.2f} to "
            f"{row['r']['high']:.2f} | {row['p']:.4f} | {row['slope']:.2f} "
            f"| {row['pooled']:.2f} "
            f"| {'' if chosen is None else f'{chosen:.1f}'} | {row['beside_label']:.2f} "
            f"| {ceiling:.2f} |"
        )
    note = (
        "r is the mean over noise seeds: it tells that more is drawn where more is asked, not how "
        "much. The slope tells how much, and the pooled r, over all faces at once and on average "
        f"{result['au_response_pooled']:.2f}, how far that stands out from the differences "
        "between faces."
    )
    return [*lines, "", note]


def _expressions(result: dict[str, Any]) -> list[str]:
    if "by_expression" not in result:
        return ["Expression agreement was not measured: it needs a guide beside the judge."]
    lines = [
        "| asked expression | judge agrees, no guidance | guided | judge's recall on real faces |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {row['expression']} | {row['off']:.2f} | {row['on']:.2f} | {row['judge_recall']:.2f} |"
        for row in result["by_expression"]
    ]
    said = ", ".join(f"{name} {value:.3f}" for name, value in result["agreement"].items())
    over = ", ".join(f"{name} {value:.3f}" for name, value in result["over_accuracy"].items())
    note = (
        f"Agreement by guidance and reader: {said}. All eight are asked equally often, so the "
        f"ratios above are over the judge's mean recall, {result['judge_mean_recall']:.3f}; over "
        f"its accuracy on real faces as frequent as they are: {over}."
    )
    return [*lines, "", note]


def _learning(result: dict[str, Any]) -> list[str]:
    rare = ("disgust", "fear", "contempt")
    lines = [
        "| learned from | faces | accuracy on real faces | seeds | macro-F1 | "
        + " | ".join(rare)
        + " |",
        "|---|---|---|---|---|" + "---|" * len(rare),
    ]
    for name, arm in result["learning"].items():
        if arm["accuracy"] is None:
            lines.append(f"| {name} | {arm['faces']} | too few | | | | | |")
            continue
        seeds = " ".join(f"{value:.3f}" for value in arm["by_seed"])
        recall = " | ".join(f"{arm['recall'][EXPRESSIONS.index(one)]:.2f}" for one in rare)
        lines.append(
            f"| {name} | {arm['faces']} | {arm['accuracy']:.3f} | {seeds} | {arm['macro_f1']:.3f} "
            f"| {recall} |"
        )
    note = (
        "The same small network and the same steps for every row; recall of rare expressions on "
        "the right. Rectified labels come from the rater `default`, which learned from real faces: "
        "part of what it gives is distillation."
    )
    return [*lines, "", note]


def _likeness(result: dict[str, Any]) -> list[str]:
    row = result["likeness"]
    names = {"made": "synthetic", "train": "real, of train", "blurred": "real, blurred by 2 px"}
    lines = [
        f"| {row['n']} faces against {row['n']} real ones of valid | Fréchet distance "
        "| 95 % interval | KID | 95 % interval | variance |",
        "|---|---|---|---|---|---|",
    ]
    for side, name in names.items():
        distance, kernel = row["frechet"][side], row["kernel"][side]
        lines.append(
            f"| {name} | {distance['value']:.2f} | {distance['low']:.2f} to {distance['high']:.2f} "
            f"| {kernel['value']:.4f} | {kernel['low']:.4f} to {kernel['high']:.4f} "
            f"| {row['variance'][side]:.0f} |"
        )
    return [
        *lines,
        "",
        "In the judge's features. The distance is biased upwards by an amount that depends on the "
        "number of faces, so it compares only at this number; the row of real faces shows how "
        "much of it is noise. The variance of real faces of valid is "
        f"{row['variance']['test']:.0f}.",
    ]


def _annotators(result: dict[str, Any]) -> list[str]:
    lines = [
        "| read by | accuracy on real faces | 95 % interval | mean recall |",
        "|---|---|---|---|",
    ]
    for name, row in result["annotators"].items():
        value = row["accuracy"]
        lines.append(
            f"| {name} | {value['value']:.3f} | {value['low']:.3f} to {value['high']:.3f} "
            f"| {row['mean_recall']:.3f} |"
        )
    return lines


def _steps(result: dict[str, Any]) -> list[str]:
    if "steps" not in result:
        return ["Ten steps were not compared with fifty figure by figure (`--fifty`)."]
    lines = ["| figure, on fewer faces | 10 steps | 50 steps | ratio |", "|---|---|---|---|"]
    for name, row in result["steps"].items():
        few, many = row["10"], row["50"]
        shown = f"{few / many:.2f}" if many else ""
        lines.append(f"| {name} | {few:.3f} | {many:.3f} | {shown} |")
    return [*lines, "", "Wanted: within 5 % of fifty steps. Same seeds on both sides."]


def _met(value: float | None, sense: str, bound: float) -> str:
    if value is None:
        return ""
    return "yes" if (value >= bound if sense == ">=" else value <= bound) else "**no**"
