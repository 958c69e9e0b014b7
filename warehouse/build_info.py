"""Name the commit and the hardware behind a measured number."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

_CODE = (":/", ":(exclude,top)tests/benchmarks/results")
"""All files except benchmark results, which name the commit and are no code change."""


def revision() -> str:
    """Return the commit of this checkout, or ``unknown``.

    ``+changes`` is added if tracked files differ from the commit.
    """
    here = Path(__file__).parent

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", *words], cwd=here, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", *_CODE)
        return git("rev-parse", "--short=12", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def hardware() -> str:
    """Return processor, cores and GPU, without the host name."""
    import torch

    cores = f"{os.cpu_count()} cores {_processor()}"
    return f"{cores}, {torch.cuda.get_device_name()}" if torch.cuda.is_available() else cores


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
