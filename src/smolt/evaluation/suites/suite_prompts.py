"""What a suite asks, and who rates the answers."""

from dataclasses import replace

from smolt.config import RewardMix, Suites
from smolt.data import Score
from smolt.errors import UserError
from smolt.evaluation.exam import Exam
from smolt.models.forward.precision import Precision
from smolt.models.ground import Ground
from smolt.models.items import asked_questions
from smolt.rewards import Part, constraints, empathy, mix, read_constraint, refusal, sentiment
from smolt.rewards.build import mixed_reward
from smolt.rewards.constraints import has_constraint
from smolt.rewards.rules import Reward


def answers_file(name: str) -> str:
    """Where the answers to a suite lie in an arm's directory."""
    return f"suite-{name}.jsonl"


def suite_exams(settings: Suites, like: Exam, ground: Ground) -> dict[str, Exam]:
    """One exam for each suite, by the file its answers go to; asked as another exam is.

    A question's kind is its scenario, its solution a constraint, safe, unsafe, or nothing.

    Raises:
        UserError: a file cannot be read, a prompt does not fit the window, or a constraint is none.
    """
    rater = suite_rater(settings, ground.precision)
    exams = {}
    for name, data in zip(settings.names, settings.prompts, strict=True):
        questions = asked_questions(data, ground.renderer, ground.window, like.sampling.max_tokens).questions
        for question in questions:
            try:
                if has_constraint(question):
                    read_constraint(question.solution or "")
            except UserError as wrong:
                raise UserError(f"{data.path}: {question.id}: {wrong}") from None
        exams[answers_file(name)] = replace(like, questions=questions, reward=rater)
    return exams


def suite_rater(settings: Suites, precision: Precision) -> Reward:
    """All scorers of the suites; each is a component of its name, and a rater of the recipe `rated_NAME`.

    Their sum would mean nothing, so there is none: every answer abstains as a whole.
    """
    rules = {"sentiment": sentiment(), "refusal": refusal(), "empathy": empathy(), "constraints": constraints()}
    parts = [Part(name, 1.0, reward) for name, reward in rules.items()]
    for name, part in settings.raters.items():
        parts.append(Part(f"rated_{name}", 1.0, mixed_reward(RewardMix(parts=(part,)), precision)))
    rate = mix(parts)
    return lambda questions, answers: [
        Score(None, score.components, "a suite has no total") for score in rate(questions, answers)
    ]
