"""``python -m shopfloor``: the same as the command ``shopfloor``."""

from shopfloor.cli import main

main()
