"""Best-of-n: of n answers to each question the one that a learned reward model likes best; the others are kept too."""

from dataclasses import replace

from smolt.config import BestOfNRecipe, RewardPart
from smolt.data import Score
from smolt.evaluation.exam import Exam, in_parts, silent
from smolt.models.answers import draw_answers, rated_answers
from smolt.models.conditions import conditions_of
from smolt.models.ground import Ground
from smolt.models.roles import Policy
from smolt.rewards.learned import learned_reward
from smolt.runs.chunks import Progress
from smolt.runs.rated_answers import RatedAnswer


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
        liked = [score.value for score in judge(found.questions, found.answers)]
        values = [float("-inf") if score is None else score for score in liked]
        best = [max(range(n * recipe.n, (n + 1) * recipe.n), key=values.__getitem__) for n in range(len(asked))]
        to_rate = range(len(found.answers)) if rate_all else best
        scores = exam.reward([found.questions[n] for n in to_rate], [found.answers[n] for n in to_rate])
        rated = dict(zip(to_rate, scores, strict=True))
        answers = rated_answers(found, [rated.get(n, Score(None)) for n in range(len(liked))], exam.seed)
        return [replace(answer, score=liked[n], chosen=n in best) for n, answer in enumerate(answers)]

    return in_parts(exam, ground, work, tell)
