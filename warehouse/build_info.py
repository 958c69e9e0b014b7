"""Where a number comes from: the commit and the hardware, without naming the machine."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

_CODE = (":/", ":(exclude,top)tests/benchmarks/results")
"""Everything but the pages that name the commit: writing one is no change of the code."""


def revision() -> str:
    """The commit of this checkout, ``+changes`` when files differ from it; else ``unknown``."""
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
    """Processor, cores and, if there is one, the GPU."""
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
