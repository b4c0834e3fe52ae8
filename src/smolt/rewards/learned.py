"""Learned rewards: a reward model as a Reward, or several of them as one."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from smolt.config import RewardPart
from smolt.data import Answer, Question, Score
from smolt.errors import UserError
from smolt.models.forward.precision import Precision
from smolt.models.ground import require_rows, window_of
from smolt.models.groups import from_answers, without_gradient
from smolt.models.locating import locate
from smolt.models.rendering import load_renderer
from smolt.models.saving import load_scorer
from smolt.rewards.rules import Reward
from smolt.rewards.shorthand import Combine, read_members, require_known_options

MEMORY = 2.0  # GiB for one forward of scoring


def learned_reward(part: RewardPart, precision: Precision) -> Reward:
    """Score answers by a reward model: its verdict at the stop token, minus the mean of what it was trained on.

    A truncated answer gets the stop token appended for its verdict. An answer that does not fit the model's window
    makes it abstain.

    Args:
        part: its directory as `path`; `options.refused: true` starts on a model that its own audit refused;
            `options.label` names the good one of a classifier's two labels, whose log-odds are the score.
        precision: where and how precisely.

    Raises:
        UserError: the path holds no reward model, or one that is no better than a trivial baseline.
    """
    located = locate(str(part.path))
    require_known_options(part)
    good = part.options.get("label")
    scorer, note = load_scorer(str(part.path), precision, None if good is None else str(good))
    require_accepted(part, note)
    renderer, window = load_renderer(located.tokenizer), window_of(located)
    require_rows(renderer, scorer.trunk.network.config.vocab_size, str(part.path))
    tokens, shift = scorer.trunk.micro_tokens(MEMORY), float(note.get("shift", 0.0))

    def reward(questions: Sequence[Question], answers: Sequence[Answer]) -> list[Score]:
        rows: list[tuple[list[int], list[int]]] = []
        scores: list[Score] = []
        fitting: list[int] = []
        for number, (question, answer) in enumerate(zip(questions, answers, strict=True)):
            context, ids = renderer.context(question.context), []
            reason = f"longer than the reward model's window of {window} tokens"
            try:
                ids = renderer.answer(answer.text)
            except UserError as fault:  # a policy writes what no template would: a thought without an end, say
                reason = f"the reward model's template: {fault}"
            rows.append((context, ids))
            scores.append(Score(None, reason=reason))
            if ids and len(context) + len(ids) <= window:
                fitting.append(number)
        if fitting:
            together = dict[tuple[int, ...], list[int]]()  # answers to one question: its context is read once
            for number in fitting:
                together.setdefault(tuple(rows[number][0]), []).append(number)
            answers_to = [[rows[number][1] for number in numbers] for numbers in together.values()]
            groups = from_answers([list(context) for context in together], answers_to)
            values = without_gradient(groups, tokens, scorer.verdicts).tolist()
            for number, value in zip(
                (number for numbers in together.values() for number in numbers), values, strict=True
            ):
                scores[number] = Score(value - shift)
        return scores

    return reward


def require_accepted(part: RewardPart, note: Mapping[str, Any]) -> None:
    """Refuse a reward model that its own audit refused, unless the recipe says to use it nevertheless.

    Raises:
        UserError: with the audit's reason.
    """
    if note.get("refused") and not part.options.get("refused"):
        raise UserError(
            f"reward model {part.path}: {note['refused']}. It may say no more than noise does; give it "
            "more or better pairs, or write options: {refused: true} to use it nevertheless"
        )


def ensemble_reward(part: RewardPart, precision: Precision) -> Reward:
    """Several reward models as one reward (Coste et al. 2310.02743).

    `options.path` lists their directories. `options.combine`: mean; min, the most pessimistic one; or uncertainty, the
    mean minus `options.penalty` times the variance between them. Each score is minus its model's mean on its own
    training answers, so models trained alike are on one scale. Components: model_1, model_2, ... and disagreement
    (their standard deviation). Where one abstains, so does the ensemble.

    Raises:
        UserError: an option is wrong, or see `learned_reward`.
    """
    members = read_members(part)
    single = {"refused": True} if members.refused else {}
    raters = [learned_reward(RewardPart(name="model", path=path, options=single), precision) for path in members.paths]

    def reward(questions: Sequence[Question], answers: Sequence[Answer]) -> list[Score]:
        columns = [rater(questions, answers) for rater in raters]
        return [combined(scores, members.combine, members.penalty) for scores in zip(*columns, strict=True)]

    return reward


def combined(scores: Sequence[Score], combine: Combine, penalty: float) -> Score:
    """One answer's score from its reward models' scores."""
    components = {f"model_{number}": score.value for number, score in enumerate(scores, 1)}
    values = [score.value for score in scores if score.value is not None]
    if len(values) < len(scores):
        return Score(None, components, next(score.reason for score in scores if score.value is None))
    apart = statistics.pstdev(values)
    middle = statistics.fmean(values)
    value = {"mean": middle, "min": min(values), "uncertainty": middle - penalty * apart**2}[combine]
    return Score(value, {**components, "disagreement": apart})
