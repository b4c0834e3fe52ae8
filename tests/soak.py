"""How often the slow tests of reliability try, and where they tell it: `make soak` and `make soak-full`.

`SMOLT_SOAK` names a file that gets a JSON line for each promise tried, with its counts; `SMOLT_SOAK_FULL` set makes the
counts those of a release. `python -m tests.soak FILE` prints the table of such a file.
"""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path


def amount(hour: int, full: int) -> int:
    """So many trials in `make soak`, so many in `make soak-full`."""
    return full if os.environ.get("SMOLT_SOAK_FULL") else hour


def tell(promise: str, what: str, **counts: float) -> None:
    """Write down what was tried and counted; a test that gets here has found no fault."""
    if place := os.environ.get("SMOLT_SOAK"):
        with open(place, "a", encoding="utf-8") as file:
            file.write(json.dumps({"promise": promise, "what": what, "counts": counts}) + "\n")


def main(given: Sequence[str]) -> int:
    """Print the table."""
    lines = ["| promise | tried on | counts |", "|---|---|---|"]
    for line in Path(given[0]).read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        counts = ", ".join(f"{name.replace('_', ' ')} {value:,}" for name, value in row["counts"].items())
        lines.append(f"| {row['promise']} | {row['what']} | {counts} |")
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
