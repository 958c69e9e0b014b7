"""Measure time by number of videos and memory by length."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.ingest_clips import clips, short_videos
from tests.benchmarks.ingest_clips import long_video as made_long

_RUN = """
import json, sys, threading, time, psutil
from pipeline.faces import detect, quality
from pipeline.faces.extract import extract
process, peaks, over = psutil.Process(), [], threading.Event()
def look():
    start = time.monotonic()
    while not over.wait(0.2):
        peaks.append((time.monotonic() - start, process.memory_info().rss / 1e6))
threading.Thread(target=look, daemon=True).start()
start = time.monotonic()
found = extract(sys.argv[1], video_id="v" * 16, batch="b", subject_id=None,
    detector=detect.load(threshold=0.5), gate=quality.Gate(), fps=float(sys.argv[2]),
    save=lambda kind, image: kind)
took = time.monotonic() - start
over.set()
tracks = found.tracks.select("start_s", "end_s", "n_frames").sort("start_s").rows()
print(json.dumps({"faces": found.faces.height, "tracks": tracks, "rss": peaks, "took_s": took,
    "verdict": [found.verdict, found.reason]}))
"""


def per_video(folder: Path, *, quick: bool) -> dict[str, Any]:
    """Return seconds per video for batches of 1 to 1,000 short videos."""
    sizes = (1, 10, 100) if quick else (1, 10, 100, 1000)
    rows = []
    for n in sizes:
        home = folder / f"home-{n}"
        short_videos(home / "inbox" / "short", n)
        # A process of its own each, or the second batch would find the libraries loaded.
        rows.append(_said([sys.executable, "-m", "tests.benchmarks.ingest_batch", str(home)]))
    return {"batches": rows}


def memory(folder: Path, *, quick: bool) -> dict[str, Any]:
    """Peak resident memory in MB of one worker, by size and by length."""
    large = clips(folder, quick=True)
    rows = {
        name: _peak(large[name], fps=5.0)
        for name in ("call, 176 x 144", "six people, 1280 x 720", "call, 1920 x 1080")
    }
    rows["call, 1920 x 1080, every frame"] = _peak(large["call, 1920 x 1080"], fps=60.0)
    for minutes in (1, 4) if quick else (2, 8):
        path, _ = made_long(folder / f"{minutes}.mp4", minutes=minutes)
        rows[f"shots, 320 x 240, about {minutes} minutes"] = _peak(path, fps=2.0)
    return {"peak_mb": rows}


def long_video(folder: Path, *, minutes: float, plot: Path) -> dict[str, Any]:
    """A long video with cuts: its tracks, and memory while it is read."""
    path, cuts = made_long(folder / "long.mp4", minutes=minutes)
    message = _run_extract(path, fps=2.0)
    rss = np.array(message["rss"])
    _plot(plot, tracks=message["tracks"], rss=rss)
    half = rss[len(rss) // 2 :, 1]
    return {
        "minutes": minutes,
        "cuts": cuts,
        "tracks": len(message["tracks"]),
        "faces": message["faces"],
        "times_real_time": minutes * 60 / message["took_s"],
        "peak_mb": float(rss[:, 1].max()),
        "second_half_grows_mb": float(half[-5:].mean() - half[:5].mean()),
        "verdict": message["verdict"],
    }


def _peak(path: Path, *, fps: float) -> float:
    return float(np.array(_run_extract(path, fps=fps)["rss"])[:, 1].max())


def _run_extract(path: Path, *, fps: float) -> dict[str, Any]:
    return _said([sys.executable, "-c", _RUN, str(path), str(fps)])


def _said(command: list[str]) -> dict[str, Any]:
    said = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(said.stdout.splitlines()[-1])


def _plot(path: Path, *, tracks: list[Any], rss: np.ndarray) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (above, below) = pyplot.subplots(2, 1, figsize=(9, 5.5), layout="constrained")
    for row, (start, end, _) in enumerate(tracks):
        above.plot([start / 60, max(end, start + 0.5) / 60], [row, row], linewidth=1.2)
    above.set(xlabel="minutes of the video", ylabel="track", title="Tracks")
    below.plot(rss[:, 0], rss[:, 1])
    below.set(xlabel="seconds of work", ylabel="MB", title="Resident memory")
    below.set_ylim(0, 1.15 * rss[:, 1].max())
    figure.savefig(path, dpi=90)
    pyplot.close(figure)
