"""The ingestion benchmark as a page of Markdown."""

from __future__ import annotations

from typing import Any

from tests.benchmarks import ingest_occlusion, ingest_sharpness
from tests.benchmarks.ingest_speed import WAYS

_TARGETS = {
    ("cv2 + InsightFace SCRFD 640, every frame", "5 per second"): 8.0,
    ("cv2 + our detector, every frame", "5 per second"): 8.0,
    ("cv2 + InsightFace SCRFD 640, 5 per second", "5 per second"): 1.8,
    ("cv2 + our detector, 5 per second", "5 per second"): 1.8,
}


def page(results: dict[str, Any]) -> str:
    """Render all measurements and the targets they miss."""
    lines = ["# Ingestion", "", "Written by `python -m tests.benchmarks.ingest`.", ""]
    makers = {
        "speed": _speed, "cuts": _cuts, "gate": _gate, "batch": _batch, "memory": _memory,
        "long": _long,
    }  # fmt: skip
    for name, make in makers.items():
        if name in results:
            part = results[name]
            quick = ", `--quick`" if part["quick"] else ""
            lines += [*make(part), ""]
            lines += [
                f"{part['date']}, commit {part['commit']}, {part['hardware']}, load "
                f"{part['load']} at the start{quick}.",
                "",
            ]
    return "\n".join(lines)


def _speed(part: dict[str, Any]) -> list[str]:
    lines = [
        "## Speed beside other loops",
        "",
        "How many times longer the other loop takes than ours from file to boxes, in wall time "
        "and in CPU time; and which share of its faces (score ≥ 0.6) ours has at the same time "
        "with IoU ≥ 0.5. At five samples a second boxes in between are drawn along the tracks, "
        "so this counts face-seconds. Targets: 8× at 99 % against the loop everyone writes, "
        "1.8× at the same sampling rate.",
        "",
    ]
    for name, clip in part["clips"].items():
        lines += [f"### {name}, {clip['frames']} frames", "", *_rivals(clip["rivals"])]
        if clip.get("same detector"):
            lines += ["", "The same SCRFD on both sides:", "", *_rivals(clip["same detector"])]
        lines += ["", _limit(clip["limit"]), ""]
    lines += [f"- not run: {name}: {why}" for name, why in part["skipped"].items()]
    return lines


def _rivals(rows: dict[str, Any]) -> list[str]:
    lines = [
        "| other loop | its faces | ours "
        + " | ".join(f"{way}: × wall | × CPU | recall" for way in WAYS)
        + " | it finds of ours |",
        "|---" * (3 + 3 * len(WAYS)) + "|",
    ]
    for rival, row in rows.items():
        cells = [rival, str(row["faces"])]
        for way in WAYS:
            cells += [_ratio(row[way], "wall", rival, way), f"{row[way]['cpu']:.1f}",
                      f"{row[way]['recall']:.3f}"]  # fmt: skip
        lines.append("| " + " | ".join([*cells, f"{row['it finds of ours']:.3f}"]) + " |")
    return lines


def _ratio(row: dict[str, float], key: str, rival: str, way: str) -> str:
    target = _TARGETS.get((rival, way))
    missed = target is not None and (row[key] < target or row["recall"] < 0.99)
    return f"{row[key]:.1f}" + (" **missed**" if missed else "")


def _limit(row: dict[str, Any]) -> str:
    decode, look, ours = row["decode"], row["look"], row["ours"]["wall_s"]
    longest = max(decode["wall_s"], look["wall_s"])
    # Each alone uses every core, so the longer of the two is more than any order can reach.
    bound = max(longest, (decode["cpu_s"] + look["cpu_s"]) / row["cores"])
    share = bound / ours
    return (
        f"{row['whole']:.0f} whole looks, {row['near']:.0f} near ones. Decoding alone and looking "
        f"alone, perfectly overlapped on {row['cores']} cores, would take {share:.2f} of our time "
        f"(target 0.85{'' if share >= 0.85 else ', **missed**'}); the longer of the two by itself "
        f"takes {longest / ours:.2f} of it; with a whole look at every sample "
        f"{max(decode['wall_s'], row['look_whole']['wall_s']) / ours:.2f}."
    )


def _cuts(part: dict[str, Any]) -> list[str]:
    lines = [
        "## Shot changes",
        "",
        f"{part['frames']} frames of shots cut together, with flashes, dimmed lights and shaking "
        "between the cuts; found within one frame counts. CPU time over decoding alone.",
        "",
        "| detector | cuts | recall | precision | F1 | CPU |",
        "|---|---|---|---|---|---|",
    ]
    return lines + [
        f"| {name} | {row['cuts']} | {row['recall']:.3f} | {row['precision']:.3f} | "
        f"{row['f1']:.3f} | {row['cpu_of_decoding']:.2f} |"
        for name, row in part["detectors"].items()
    ]


def _gate(part: dict[str, Any]) -> list[str]:
    lines = [
        "## Quality gate",
        "",
        "![measures against damage](ingest_gate.png)",
        "",
        "Median of the measure (share of faces the whole gate keeps) at each degree of damage.",
        "",
        "| damage | measure | default | by degree |",
        "|---|---|---|---|",
    ]
    for name, row in part["measures"].items():
        steps = ", ".join(
            f"{level:g}: {median:.3g} ({kept:.0%})"
            for level, median, kept in zip(row["levels"], row["median"], row["kept"], strict=True)
        )
        lines.append(f"| {name} | {row['measure']} | {row['threshold']:g} | {steps} |")
    if "fer" in part:
        fer = part["fer"]
        listed = ", ".join(f"{code} {n}" for code, n in fer["verdicts"].items())
        lines += ["", f"Of {fer['faces']} faces found on FER+: {listed}."]
    if "sharpness" in part:
        lines += ["", *ingest_sharpness.lines(part["sharpness"])]
    if "occlusion" in part:
        lines += ["", *ingest_occlusion.lines(part["occlusion"])]
    return lines


def _batch(part: dict[str, Any]) -> list[str]:
    total = {
        row["videos"]: row["videos"] * (row["register_s"] + row["faces_s"])
        for row in part["batches"]
    }
    most = max(total)
    unit = (total[most] - total[1]) / (most - 1)
    lines = [
        "## Cost per video as their number grows",
        "",
        "Half a second each, from file to tables, in a new process each time; 1 is what each "
        f"video after the first costs in the batch of {most}. A new process pays once for "
        "importing its libraries and loading the network, which the last column leaves out. "
        "Target: flat within 10 %.",
        "",
        "| videos | per video | per video after the first |",
        "|---|---|---|",
    ]
    for n, seconds in total.items():
        further = _flat((seconds - total[1]) / (n - 1) / unit) if n > 1 else ""
        lines.append(f"| {n} | {_flat(seconds / n / unit)} | {further} |")
    return lines


def _flat(share: float) -> str:
    return f"{share:.2f}" + ("" if abs(share - 1) <= 0.1 else " **missed**")


def _memory(part: dict[str, Any]) -> list[str]:
    return [
        "## Peak memory of one worker",
        "",
        "| video | MB |",
        "|---|---|",
        *(f"| {name} | {value:.0f} |" for name, value in part["peak_mb"].items()),
        "",
        "Target: 1,500 MB at 1080 lines, any length.",
    ]


def _long(part: dict[str, Any]) -> list[str]:
    return [
        f"## {part['minutes']:g} minutes with {part['cuts']} cuts",
        "",
        "![tracks and memory](ingest_long.png)",
        "",
        f"{part['tracks']} tracks, {part['faces']} faces at two samples a second, "
        f"{part['times_real_time']:.0f} times real time on one inference thread; peak "
        f"{part['peak_mb']:.0f} MB, and the second half of the way adds "
        f"{part['second_half_grows_mb']:.0f} MB.",
    ]
