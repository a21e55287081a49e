"""``python -m nbcr.cli``."""

from __future__ import annotations

from nbcr.cli import main

if __name__ == "__main__":
    main()
