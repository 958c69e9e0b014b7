"""The ingestion benchmark as a page of Markdown."""

from __future__ import annotations

from typing import Any

_TARGETS = {
    ("cv2 + InsightFace SCRFD 640, every frame", "5 per second"): 8.0,
    ("cv2 + our detector, every frame", "5 per second"): 8.0,
    ("cv2 + InsightFace SCRFD 640, 5 per second", "5 per second"): 1.8,
    ("cv2 + our detector, 5 per second", "5 per second"): 1.8,
}


def page(results: dict[str, Any]) -> str:
    """Everything measured so far, part by part; what missed its target says so."""
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
        lines += [
            f"### {name}, {clip['frames']} frames",
            "",
            "| other loop | its faces | ours 5/s: × wall | × CPU | recall | ours every frame: "
            "× wall | × CPU | recall | it finds of ours |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        for rival, row in clip["rivals"].items():
            cells = [rival, str(row["faces"])]
            for way in ("5 per second", "every frame"):
                cells += [_ratio(row[way], "wall", rival, way), f"{row[way]['cpu']:.1f}",
                          f"{row[way]['recall']:.3f}"]  # fmt: skip
            lines.append("| " + " | ".join([*cells, f"{row['it finds of ours']:.3f}"]) + " |")
        lines += ["", _limit(clip["limit"]), ""]
    lines += [f"- not run: {name}: {why}" for name, why in part["skipped"].items()]
    return lines


def _ratio(row: dict[str, float], key: str, rival: str, way: str) -> str:
    target = _TARGETS.get((rival, way))
    missed = target is not None and (row[key] < target or row["recall"] < 0.99)
    return f"{row[key]:.1f}" + (" **missed**" if missed else "")


def _limit(row: dict[str, float]) -> str:
    bound = max(row["decode_s"], row["look_s"])
    share = bound / row["ours_s"]
    return (
        f"{row['whole']:.0f} whole looks, {row['near']:.0f} near ones. Decoding alone and looking "
        f"alone, perfectly overlapped, would take {share:.2f} of our time (target 0.85"
        f"{'' if share >= 0.85 else ', **missed**'}); with a whole look at every sample "
        f"{max(row['decode_s'], row['look_whole_s']) / row['ours_s']:.2f} of it."
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
    return lines


def _batch(part: dict[str, Any]) -> list[str]:
    rows = part["batches"]
    base = next((row for row in rows if row["videos"] == 100), rows[-1])
    whole = base["register_s"] + base["faces_s"]
    lines = [
        "## Cost per video as their number grows",
        "",
        "Half a second each, from file to tables, over the cost in the batch of 100. One video "
        "pays alone for loading the network; many share that. Target: flat within 10 %.",
        "",
        "| videos | register | faces | together |",
        "|---|---|---|---|",
    ]
    for row in rows:
        each = row["register_s"] + row["faces_s"]
        missed = "" if abs(each / whole - 1) <= 0.1 else " **missed**"
        lines.append(
            f"| {row['videos']} | {row['register_s'] / whole:.2f} | {row['faces_s'] / whole:.2f} "
            f"| {each / whole:.2f}{missed} |"
        )
    return lines


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
