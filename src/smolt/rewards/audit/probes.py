"""Made-up answers that no reader would choose: how often does a reward model score one above the chosen answer?"""

from collections.abc import Callable, Sequence

import torch

from smolt.models.groups import Groups, from_answers, join, without_gradient
from smolt.models.rendering import Renderer
from smolt.models.roles import Scorer
from smolt.rewards.audit.linter import CONSTANT, STUFFED
from smolt.statistics import Measure, proportion

MOST_PAIRS = 256
TIMES = 3  # how often the rejected answer is said in the probe "repeated"
KNOWN: dict[str, Callable[[str], str]] = {
    "empty": lambda rejected: "",
    "constant": lambda rejected: CONSTANT,
    "stuffed": lambda rejected: STUFFED,
    "repeated": lambda rejected: " ".join([rejected] * TIMES),
}
"""Name -> the probe's text, from the rejected answer's."""


def probe(
    scorer: Scorer,
    renderer: Renderer,
    window: int,
    micro_tokens: int,
    asked: Sequence[tuple[torch.Tensor, str]],
    chosen: Sequence[float],
) -> dict[str, Measure]:
    """Share of pairs in which each probe is scored above the chosen answer; probes that do not fit are left out.

    Args:
        scorer: the reward model.
        renderer: its own.
        window: most tokens of context and answer.
        micro_tokens: of one forward.
        asked: context tokens and rejected text of each pair; the first 256 are tried.
        chosen: the chosen answers' scores.
    """
    rows: list[tuple[int, str]] = []
    groups: list[Groups] = []
    for place, (context, rejected) in enumerate(asked[:MOST_PAIRS]):
        made = {name: renderer.answer(text(rejected)) for name, text in KNOWN.items()}
        fitting = {name: ids for name, ids in made.items() if len(context) + len(ids) <= window}
        if fitting:
            groups.append(from_answers([context.tolist()], [list(fitting.values())]))
            rows += [(place, name) for name in fitting]
    if not rows:
        return {}
    scores = without_gradient(join(groups), micro_tokens, scorer.verdicts).tolist()
    above: dict[str, list[bool]] = {name: [] for name in KNOWN}
    for (place, name), score in zip(rows, scores, strict=True):
        above[name].append(score > chosen[place])
    shares = {name: proportion(flags) for name, flags in above.items()}
    return {name: share for name, share in shares.items() if share is not None}
