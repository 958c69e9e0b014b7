"""The page of ``tests.benchmarks.queue``."""

from __future__ import annotations

from typing import Any

BUDGETS = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0)
"""Votes per face that have been spent when a policy is measured."""


def page(result: dict[str, Any]) -> str:
    lines = [
        "# Votes spent by the queue, and at random",
        "",
        f"{result['date']}, commit {result['commit']}, {result['hardware']}. "
        f"{result['faces']} images of the FER+ validation file with ten votes each, "
        f"{result['seeds']} draws of the order in which votes come in. The belief of machine and "
        f"votes (the machine counting as {result['machine_votes']:g} votes) is compared with the "
        "shares of all ten votes.",
        "",
        "The votes bought are among the ten, so with all ten bought every policy is as near: the "
        "curve says how soon, not how near an eleventh person would be. Who voted is not known in "
        "FER+, so nothing here rests on who is reliable.",
        "",
        "Mean distance (total variation) by votes spent per face; smaller is better:",
        "",
        "| policy | " + " | ".join(f"{budget:g}" for budget in BUDGETS) + " |",
        "|---|" + "---|" * len(BUDGETS),
    ]
    for name, rows in result["policies"].items():
        lines.append(f"| {name} | " + " | ".join(f"{row['distance']:.4f}" for row in rows) + " |")
    lines += [
        "",
        "Share of faces whose plurality is missed, of those that have one:",
        "",
        "| policy | " + " | ".join(f"{budget:g}" for budget in BUDGETS) + " |",
        "|---|" + "---|" * len(BUDGETS),
    ]
    for name, rows in result["policies"].items():
        lines.append(f"| {name} | " + " | ".join(f"{row['wrong']:.4f}" for row in rows) + " |")
    lines += [
        "",
        f"Votes per face until the distance is what three random votes buy ({result['goal']:.4f}):",
        "",
        "| policy | votes per face | of random's |",
        "|---|---|---|",
    ]
    for name, votes in result["votes_for_goal"].items():
        shown = f"{votes:.2f} | {votes / 3:.0%}" if votes is not None else "not within 5 |"
        lines.append(f"| {name} | {shown} |")
    lines += [
        "",
        "How many votes the machine should count as, the queue's budget on the even rows:",
        "",
        "| machine counts as | " + " | ".join(f"{budget:g}" for budget in BUDGETS) + " |",
        "|---|" + "---|" * len(BUDGETS),
    ]
    for strength, rows in result["strengths"].items():
        shown = " | ".join(f"{row['distance']:.4f}" for row in rows)
        lines.append(f"| {strength} | {shown} |")
    return "\n".join(lines) + "\n"
