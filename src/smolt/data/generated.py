"""The data that a study makes itself: word problems or support tickets, and a text for pretraining."""

from pathlib import Path
from typing import Any

from smolt.config import ProblemsRecipe
from smolt.data import Source, load
from smolt.data.problems import facts, write_problems
from smolt.data.ticket_decisions import write_ticket_decisions
from smolt.data.tickets import write_tickets
from smolt.runs import atomic_write


def write_generated(folder: Path, recipe: ProblemsRecipe) -> dict[str, Any]:
    """The questions of a study, and a text for pretraining: what is shown of them, and arithmetic."""
    counts = (recipe.seed, recipe.train, recipe.dev, recipe.test, recipe.demonstrations)
    if recipe.task == "decisions":
        lines = write_ticket_decisions(folder, *counts[:4], recipe.careless)
        atomic_write(folder / "text.txt", "\n".join(lines) + "\n")
        return {"files": sorted(path.name for path in folder.glob("*.jsonl"))}
    if recipe.task == "support":
        write_tickets(folder, *counts, recipe.careless)
    else:
        write_problems(folder, *counts, recipe.brief)
    shown = "demonstrations.jsonl" if recipe.demonstrations else "train.jsonl"
    lines = [*load(Source(str(folder / shown)), "text").records, *facts(recipe.seed, recipe.facts)]
    atomic_write(folder / "text.txt", "\n".join(lines) + "\n")
    return {"files": sorted(path.name for path in folder.glob("*.jsonl"))}
