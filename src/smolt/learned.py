"""The learned reward: a reward model as a Reward."""

from collections.abc import Sequence

from smolt.config import RewardMix, RewardPart
from smolt.directories import locate
from smolt.errors import UserError
from smolt.groups import from_answers, without_gradient
from smolt.judges import judge_reward
from smolt.preparation import window_of
from smolt.records import Answer, Question, Score
from smolt.rendering import load_renderer
from smolt.rewards import build_reward
from smolt.saving import load_scorer
from smolt.streams import Reward
from smolt.trunk import Precision

MEMORY = 2.0  # GiB for one forward of scoring


def mixed_reward(mix: RewardMix, precision: Precision) -> Reward:
    """The reward a recipe asks for, its reward models loaded at `precision`."""
    return build_reward(
        mix.parts,
        model_reward=lambda part: learned_reward(part, precision),
        judge_reward=lambda part: judge_reward(part, precision),
        cap=mix.cap,
    )


def learned_reward(part: RewardPart, precision: Precision) -> Reward:
    """Score answers by a reward model: its verdict at the stop token, minus the mean of what it was trained on.

    A truncated answer gets the stop token appended for its verdict. An answer that does not fit the model's window
    makes it abstain.

    Args:
        part: its directory as `path`; `options.refused: true` starts on a model that its own audit refused.
        precision: where and how precisely.

    Raises:
        UserError: the path holds no reward model, or one that is no better than a trivial baseline.
    """
    located = locate(str(part.path))
    scorer, note = load_scorer(str(part.path), precision)
    unknown = set(part.options) - {"refused"}
    if unknown:
        raise UserError(f"reward model: options.{min(unknown)}: unknown option; there is refused")
    if note.get("refused") and not part.options.get("refused"):
        raise UserError(
            f"reward model {part.path}: {note['refused']}. Training on it would optimise noise; give it more or better "
            "pairs, or write options: {refused: true} to use it nevertheless"
        )
    renderer, window = load_renderer(located.tokenizer), window_of(located)
    tokens, shift = scorer.trunk.micro_tokens(MEMORY), float(note.get("shift", 0.0))

    def reward(questions: Sequence[Question], answers: Sequence[Answer]) -> list[Score]:
        rows = [
            (renderer.context(question.context), renderer.answer(answer.text))
            for question, answer in zip(questions, answers, strict=True)
        ]
        fitting = [number for number, (context, ids) in enumerate(rows) if len(context) + len(ids) <= window]
        scores = [Score(None, reason=f"longer than the reward model's window of {window} tokens")] * len(rows)
        if fitting:
            groups = from_answers([rows[number][0] for number in fitting], [[rows[number][1]] for number in fitting])
            values = without_gradient(groups, tokens, scorer.verdicts).tolist()
            for number, value in zip(fitting, values, strict=True):
                scores[number] = Score(value - shift)
        return scores

    return reward
