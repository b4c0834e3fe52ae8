"""As a stage with a reward begins: does the reward vary over the policy's own answers, and what does it reward?

A training takes the answers of its first updates; `smolt reward-check` draws some with counters of their own.
"""

import logging
from dataclasses import asdict
from typing import Any

from smolt import randomness
from smolt.config import PPORecipe
from smolt.data import Answer, Question, Score, Turn
from smolt.errors import SelfCheckError
from smolt.models.answers import as_answers
from smolt.models.sampling import sample
from smolt.report.panels import Panel, panel_name
from smolt.rewards import Finding, lint_reward
from smolt.rewards.audit.xray import XRay, refusal, reward_panel, verdict, xray
from smolt.runs.rated_answers import RatedAnswer
from smolt.training.online.rolling import Rolling, RolloutRecipe
from smolt.training.plan import FORECAST

LOG = logging.getLogger(__name__)
QUESTIONS = 8
SAMPLES = 16  # answers a question, so that a group of 16 can be forecast
LEAST = 64  # answers in all, where there are fewer questions
STAGE = 1_000_033  # a counter that sets these draws apart from all others
LINTED = 16


def look(rolling: Rolling) -> tuple[XRay, list[Finding]]:
    """Rate a sample of the policy's answers, drawn and rated as the training will, and the linter's made-up ones."""
    seed, questions = rolling.recipe.seed, chosen(rolling)[:QUESTIONS]
    samples = max(SAMPLES, -(-LEAST // len(questions)))
    LOG.info("sampling %d answers", samples * len(questions))
    groups = sample(rolling.policy, rolling.contexts(questions), samples, rolling.drawing, (seed, STAGE))
    asked = [questions[owner] for owner in groups.owners]
    answers = as_answers(groups, rolling.ground.renderer)
    return xray(asked, answers, rolling.reward(asked, answers)), linted(rolling)


def chosen(rolling: Rolling) -> list[Question]:
    """The questions in an order of the forecast's own."""
    order = randomness.permutation(len(rolling.questions), rolling.recipe.seed, STAGE)
    return [rolling.questions[place] for place in order]


def linted(rolling: Rolling) -> list[Finding]:
    """What made-up answers earn."""
    return lint_reward(rolling.reward, chosen(rolling)[:LINTED])


def forecast(rolling: Rolling, rated: list[RatedAnswer]) -> dict[str, Any]:
    """What a run's manifest keeps: `forecast` (figures and advice) and `panels` (for the report).

    Args:
        rolling: the stage's parts.
        rated: answers of its first updates.

    Raises:
        SelfCheckError: they are enough, and all are rated alike or none is rated.
    """
    questions = [Question((Turn("user", row.key),)) for row in rated]
    answers = [Answer(row.answer, row.tokens, row.stopped) for row in rated]
    found = xray(questions, answers, [Score(row.reward, row.components, row.abstained or "") for row in rated])
    if not found.varies and found.answers >= FORECAST:
        raise SelfCheckError(f"{refusal(found)}; to train nevertheless: checks.forecast=false")
    findings = linted(rolling)
    errors = [
        f"reward linter: {finding.message}" for finding in findings if finding.severity == "error" and found.varies
    ]
    figures = {
        "answers": found.answers,
        "questions": found.questions,
        "reward": asdict(found.parts[0].mean),
        "no_signal": {str(size): asdict(measure) for size, measure in found.no_signal.items()},
        "stop_rate": found.stop_rate,
        "advice": [*errors, *verdict(found, group_of(rolling.recipe))],
    }
    return {"forecast": figures, "panels": [asdict(panel_of(rolling.recipe, found, findings))]}


def group_of(recipe: RolloutRecipe) -> int | None:
    """Answers that compete with each other; None for PPO, whose answers do not."""
    return None if isinstance(recipe, PPORecipe) else recipe.answers


def panel_of(recipe: RolloutRecipe, found: XRay, findings: list[Finding]) -> Panel:
    """The panel of a run's reward."""
    name, title = panel_name(f"reward-{recipe.name}"), f"The reward of {recipe.name}"
    return reward_panel(name, title, found, findings, group_of(recipe))
