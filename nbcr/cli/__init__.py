"""The headless face: ``nbcr``. Parses, calls the session layer, prints. Exit status: see `nbcr.cli.app.EXIT_CODES`.

app          the app, common options, errors as one line and an exit status
processes    checkpoint, restart              entries   list, show, get, diff, remove
programs     run, execute, kernelspec         live      top, logs, doctor
store        pack, gc, prune, verify, tag …   remote    push, pull, export, import     keys   encrypt, unlock, lock
completing   what a shell offers when Tab is pressed
"""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point of the command ``nbcr``. What it needs is imported here, where an interrupt can be told, too."""
    try:
        from nbcr.cli.app import main as run

        run()
    except KeyboardInterrupt:
        print("nbcr: interrupted", file=sys.stderr)
        sys.exit(130)
