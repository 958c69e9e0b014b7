"""Write FER+ as one file for training without the face finder.

``python -m annotation.raters.training.prepare --data DIR --out FILE`` aligns the training images,
leaves out duplicates and pictures of the validation file, and writes the rest, about 47 MB. Raters
and synthesis are trained from it by ``--data FILE``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.progress import Progress

from annotation.raters.training.train import add_data_options, read_faces


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m annotation.raters.training.prepare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_data_options(parser)
    parser.add_argument("--out", type=Path, required=True, help="the file to write")
    options = parser.parse_args(arguments)
    with Progress() as bar:
        _, unique = read_faces(options, bar)
    unique.save(options.out)
    size = options.out.stat().st_size / 1e6
    print(f"{len(unique.faces)} faces in {options.out}, {size:.1f} MB")


if __name__ == "__main__":
    main()
