"""`python -m smolt` is the same program as `smolt`."""

import sys

from smolt.cli import main

if __name__ == "__main__":
    sys.exit(main())
