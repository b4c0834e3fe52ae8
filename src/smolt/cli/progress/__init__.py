"""What a command shows while it runs: one line on a terminal, now and then a line elsewhere, never long nothing."""

from smolt.cli.progress.display import FIGURES, Display, counting, figures, telling, times
from smolt.cli.progress.step_lines import StepBar, moved_on, standard_error, steps_named

__all__ = [
    "FIGURES",
    "Display",
    "StepBar",
    "counting",
    "figures",
    "moved_on",
    "standard_error",
    "steps_named",
    "telling",
    "times",
]
