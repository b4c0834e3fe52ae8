"""A model asked, and each of its answers rated; a temperature of other decisions between the two."""

from collections.abc import Callable, Sequence

from smolt.data import Decision
from smolt.evaluation.decided.rated_decisions import cooled, rated, temperatures
from smolt.models.forward.precision import Precision
from smolt.rewards.llm_judge.decider import open_decider
from smolt.runs.rated_answers import RatedAnswer


def opened(
    path: str, precision: Precision, dev: Sequence[Decision] = ()
) -> Callable[[Sequence[Decision]], list[RatedAnswer]]:
    """Load a model; what rates its answers to decisions, those that exceed its window left out.

    Args:
        path: of the model.
        precision: where and how precisely.
        dev: decisions on which a temperature for each type of question is fitted, over the model's own; none fits none.
    """
    decider = open_decider(path, precision)
    own = dict(decider.temperature)
    pairs = [(one, said) for one, said in zip(dev, decider.decide(dev) if dev else (), strict=True) if said is not None]
    fitted = temperatures([one for one, _ in pairs], [said for _, said in pairs]) if dev else {}
    whole = {kind: own.get(kind, 1.0) * fitted.get(kind, 1.0) for kind in own.keys() | fitted.keys()}

    def answers(decisions: Sequence[Decision]) -> list[RatedAnswer]:
        found = []
        for decision, said in zip(decisions, decider.decide(decisions), strict=True):
            if said is not None:
                found += rated(decision, cooled(decision, said, fitted), whole or None)
        return found

    return answers
