"""One batch of a home from file to tables, timed, in a process of its own:
``python -m tests.benchmarks.ingest_batch HOME``."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from pipeline.ingest import register as stage
from warehouse.storage import tables
from warehouse.storage.home import Home


def main() -> None:
    home = Home.at(Path(sys.argv[1]))
    start = time.perf_counter()
    stage.register(home, "short")
    registered = time.perf_counter()
    stage.find_faces(home, "short", stage.FaceOptions(), limit_s=stage.time_limit)
    done = time.perf_counter()
    verdicts = tables.read(home, "videos")["verdict"]
    n = len(verdicts)
    message = {
        "videos": n,
        "register_s": (registered - start) / n,
        "faces_s": (done - registered) / n,
        "searched": int((verdicts != "failed").sum()),
    }
    print(json.dumps(message))


if __name__ == "__main__":
    main()
