"""`python -m bench [NAME] [flags of that benchmark]`: one benchmark, or all of them with their defaults."""

import sys
from collections.abc import Callable, Sequence

from bench import against_limits, against_trl, growth, memory

BENCHES: dict[str, Callable[[Sequence[str]], int]] = {
    against_limits.NAME: against_limits.main,
    against_trl.NAME: against_trl.main,
    growth.NAME: growth.main,
    memory.NAME: memory.main,
}


def main(given: Sequence[str]) -> int:
    """Run what was asked for; the exit code is that of the first benchmark that failed."""
    if given and given[0] in BENCHES:
        return BENCHES[given[0]](given[1:])
    if given and not given[0].startswith("-"):
        print(f"unknown benchmark {given[0]}; there are {', '.join(BENCHES)}", file=sys.stderr)
        return 2
    return max(bench(given) for bench in BENCHES.values())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
