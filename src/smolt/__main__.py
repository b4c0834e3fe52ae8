"""`python -m smolt` is the same program as `smolt`."""

from smolt.cli import main

if __name__ == "__main__":
    main()
