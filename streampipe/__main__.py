"""``python -m streampipe``: the command."""

import sys

from streampipe.cli import main

if __name__ == "__main__":
    sys.exit(main())
