"""The command line. Nothing heavy is imported before a command needs it: help answers at once."""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point: exit 0 done, 1 failed with one clear message, 2 wrong usage."""
    from pipeline.cli.app import app
    from warehouse.errors import RisoriusError
    from warehouse.masking import mask

    try:
        app()
    except RisoriusError as error:
        if "--debug" in sys.argv:
            _show_traceback()
        print(f"risorius: {error}", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:
        # `risorius sql … | head`: the reader has what it wanted.
        sys.stderr.close()
        sys.exit(0)
    except Exception as error:
        if "--debug" in sys.argv:
            _show_traceback()
        print(
            f"risorius: a bug: {type(error).__name__}: {mask(str(error))}; run it again with "
            "--debug and report what it prints",
            file=sys.stderr,
        )
        sys.exit(1)


def _show_traceback() -> None:
    """What Python itself would print, without secrets."""
    import traceback

    from warehouse.masking import mask

    print(mask(traceback.format_exc()), file=sys.stderr)
