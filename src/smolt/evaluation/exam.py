"""The same questions for every arm: answers by the one renderer and sampler, rated by one reward, one row an answer.

Best-of-n is an arm too: of n answers to each question the one that a learned reward model likes best.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from smolt.config import BestOfNRecipe, Data, EvaluationSampling, Model, RewardMix, RewardPart
from smolt.data import Answer, Question, Score
from smolt.errors import UserError
from smolt.models.answers import draw_answers, rated_answers
from smolt.models.conditions import Conditions, conditions_of
from smolt.models.ground import Ground
from smolt.models.groups import Groups, answer_sums, without_gradient
from smolt.models.items import asked_questions
from smolt.models.roles import Policy, divergence
from smolt.models.sampling import sample
from smolt.models.saving import load_policy
from smolt.rewards.build import mixed_reward
from smolt.rewards.learned import learned_reward
from smolt.rewards.rules import Reward
from smolt.runs.chunks import Progress, Work, part
from smolt.runs.rated_answers import RatedAnswer, as_row

LOG = logging.getLogger(__name__)
CHUNK = 256  # questions answered between two progress reports
REFILLS = 4  # how often a chunk fills the sampler's slots: with fewer they would stand empty at each chunk's end
KL_QUESTIONS = 256  # questions on which the KL to the reference is measured, by answers drawn at temperature 1
KL_STAGE = 1_000_003  # a counter that sets these draws apart from all others


def silent(done: int, total: int) -> None:
    """Tells nobody."""


@dataclass(frozen=True)
class Exam:
    """The same questions, limits and rater for every arm.

    Attributes:
        questions: in order; an arm answers all of them.
        conditions: prompt, length, stop rule and extractor, the same for all arms.
        sampling: temperature (0 is greedy) and batch.
        samples: answers to each.
        reward: who rates.
        seed: of the draws.
        sha256: of the questions' data.
        too_long: questions left out because they leave no room for an answer.
    """

    questions: list[Question]
    conditions: Conditions
    sampling: EvaluationSampling
    samples: int
    reward: Reward
    seed: int
    sha256: str = ""
    too_long: int = 0

    @property
    def chunk(self) -> int:
        """Questions answered between two checkpoints."""
        return max(1, REFILLS * self.sampling.batch // self.samples)


def unrated(questions: Sequence[Question], answers: Sequence[Answer]) -> list[Score]:
    """Nobody rates."""
    return [Score(None)] * len(answers)


def open_exam(
    ground: Ground,
    data: Data | Sequence[Question],
    reward: RewardMix | None,
    sampling: EvaluationSampling,
    samples: int,
    seed: int,
    items: int | None = None,
    too_long: str = "error",
) -> Exam:
    """Read the questions and build the rater, once for all arms; `too_long` is for questions in memory."""
    longest = sampling.max_tokens
    asked = asked_questions(data, ground.renderer, ground.window, longest, too_long)
    rater = unrated if reward is None else mixed_reward(reward, ground.precision)
    conditions = conditions_of(ground.renderer, longest)
    return Exam(asked.questions[:items], conditions, sampling, samples, rater, seed, asked.sha256, asked.dropped)


def take(exam: Exam, policy: Policy, ground: Ground, tell: Progress = silent) -> list[RatedAnswer]:
    """A policy's rated answers to all questions of the exam.

    Raises:
        UserError: this arm's template or stop tokens are others than the exam's.
    """
    return in_parts(exam, ground, lambda places: answer_part(exam, policy, ground, places), tell)


def best_of_n(
    exam: Exam, recipe: BestOfNRecipe, policy: Policy, ground: Ground, rate_all: bool = False, tell: Progress = silent
) -> list[RatedAnswer]:
    """The n answers to each question in turn; the model that chooses does not see the solution.

    Args:
        exam: questions and rater.
        recipe: how many answers, and who chooses.
        policy: who answers.
        ground: of the policy.
        rate_all: the exam's reward rates all n answers and not the chosen one alone.
        tell: hears how many questions are answered.

    Raises:
        UserError: as for `take`.
    """
    judge = learned_reward(
        RewardPart(name="model", path=recipe.reward_model, options={"refused": True}), ground.precision
    )
    limits = recipe.sampling
    drawing = conditions_of(ground.renderer, limits.max_tokens).drawing(limits.temperature, limits.batch)
    counter = (recipe.seed, exam.seed)

    def work(places: range) -> list[RatedAnswer]:
        asked = exam.questions[places.start : places.stop]
        found = draw_answers(policy, ground.renderer, asked, recipe.n, drawing, counter, places.start)
        LOG.info("rating %d answers", len(found.answers))
        liked = [score.value for score in judge(found.questions, found.answers)]
        values = [float("-inf") if score is None else score for score in liked]
        best = [max(range(n * recipe.n, (n + 1) * recipe.n), key=values.__getitem__) for n in range(len(asked))]
        to_rate = range(len(found.answers)) if rate_all else best
        scores = exam.reward([found.questions[n] for n in to_rate], [found.answers[n] for n in to_rate])
        rated = dict(zip(to_rate, scores, strict=True))
        answers = rated_answers(found, [rated.get(n, Score(None)) for n in range(len(liked))], exam.seed)
        return [replace(answer, score=liked[n], chosen=n in best) for n, answer in enumerate(answers)]

    return in_parts(exam, ground, work, tell)


def in_parts(
    exam: Exam, ground: Ground, work: Callable[[range], list[RatedAnswer]], tell: Progress
) -> list[RatedAnswer]:
    """What `work` makes of all questions, some places at a time.

    Raises:
        UserError: as for `take`.
    """
    require_same(exam, ground)
    found: list[RatedAnswer] = []
    for start in range(0, len(exam.questions), CHUNK):
        places = range(start, min(start + CHUNK, len(exam.questions)))
        part(places, len(exam.questions))
        found += work(places)
        tell(places.stop, len(exam.questions))
    return found


def answer_part(exam: Exam, policy: Policy, ground: Ground, places: range) -> list[RatedAnswer]:
    """A policy's rated answers to the questions at some places."""
    drawing = exam.conditions.drawing(exam.sampling.temperature, exam.sampling.batch)
    asked = exam.questions[places.start : places.stop]
    found = draw_answers(policy, ground.renderer, asked, exam.samples, drawing, (exam.seed,), places.start)
    LOG.info("rating %d answers", len(found.answers))
    return rated_answers(found, exam.reward(found.questions, found.answers), exam.seed)


def answering_work(exam: Exam, model: Model, ground: Ground) -> Callable[[], Work]:
    """What loads the model, and gives what makes the rows of its answers to the questions at some places."""

    def open_work() -> Work:
        policy = load_policy(model.path, ground.precision)
        return lambda places: [as_row(answer) for answer in answer_part(exam, policy, ground, places)]

    return open_work


def require_same(exam: Exam, ground: Ground) -> None:
    """Refuse an arm that would read its questions in another form, or end its answers elsewhere, than the others.

    Raises:
        UserError: naming what differs.
    """
    own = conditions_of(ground.renderer, exam.conditions.max_tokens).record()
    differing = [name for name, value in exam.conditions.record().items() if own[name] != value]
    if differing:
        raise UserError(
            f"{ground.located.base}: its {' and '.join(differing)} differ from the other arms': answers given under "
            "different conditions cannot be compared"
        )


def kl_to(reference: Policy, policy: Policy, exam: Exam, ground: Ground) -> list[float]:
    """KL(policy || reference) of whole answers, in nats, from one at temperature 1 to each of the first questions.

    Each token's KL is taken over the whole vocabulary, so no estimate is below 0 (see `roles.divergence`).
    """
    LOG.info("measuring the KL to the baseline")
    contexts = [ground.renderer.context(question.context) for question in exam.questions[:KL_QUESTIONS]]
    drawing = exam.conditions.drawing(1.0, exam.sampling.batch)
    groups: Groups = sample(policy, contexts, 1, drawing, (exam.seed, KL_STAGE))
    tokens = policy.trunk.micro_tokens(2.0)
    apart = without_gradient(groups, tokens, lambda part: divergence(policy, reference, part)[0])
    values: list[float] = answer_sums(apart, groups.mask).tolist()
    return values
