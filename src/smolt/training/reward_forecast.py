"""Before update 1 of PPO and GRPO: does the reward vary over the policy's own answers, and what does it reward?

The answers are drawn with counters of their own, so what the training draws later is the same with and without them.
"""

from dataclasses import asdict
from typing import Any

from smolt import randomness
from smolt.config import GRPORecipe
from smolt.errors import SelfCheckError
from smolt.models.answers import as_answers
from smolt.models.sampling import sample
from smolt.report.panels import Panel, panel_name
from smolt.rewards import Finding, lint_reward
from smolt.rewards.audit.xray import XRay, advice, reward_panel, xray
from smolt.training.online import Rolling, RolloutRecipe

QUESTIONS = 8
SAMPLES = 16  # answers a question, so that a group of 16 can be forecast
LEAST = 64  # answers in all, where there are fewer questions
STAGE = 1_000_033  # a counter that sets these draws apart from all others
LINTED = 16


def look(rolling: Rolling) -> tuple[XRay, list[Finding]]:
    """Rate a sample of the policy's answers, drawn and rated as the training will, and the linter's made-up ones."""
    seed, renderer = rolling.recipe.seed, rolling.ground.renderer
    chosen = [rolling.questions[place] for place in randomness.permutation(len(rolling.questions), seed, STAGE)]
    questions = chosen[:QUESTIONS]
    samples = max(SAMPLES, -(-LEAST // len(questions)))
    groups = sample(rolling.policy, rolling.contexts(questions), samples, rolling.drawing, (seed, STAGE))
    asked, answers = [questions[owner] for owner in groups.owners], as_answers(groups, renderer)
    return xray(asked, answers, rolling.reward(asked, answers)), lint_reward(rolling.reward, chosen[:LINTED])


def forecast(rolling: Rolling) -> dict[str, Any]:
    """What a run's manifest keeps: `forecast` (figures and advice) and `panels` (for the report).

    Raises:
        SelfCheckError: all answers are rated alike, or none is rated.
    """
    found, findings = look(rolling)
    if not found.varies:
        raise SelfCheckError(refusal(found))
    errors = [f"reward linter: {finding.message}" for finding in findings if finding.severity == "error"]
    figures = {
        "answers": found.answers,
        "questions": found.questions,
        "reward": asdict(found.parts[0].mean),
        "no_signal": {str(size): asdict(measure) for size, measure in found.no_signal.items()},
        "stop_rate": found.stop_rate,
        "advice": [*errors, *advice(found, group_of(rolling.recipe))],
    }
    return {"forecast": figures, "panels": [asdict(panel_of(rolling.recipe, found, findings))]}


def refusal(found: XRay) -> str:
    """Why a reward without any difference is not trained on."""
    said = f"all got {found.rewards[0]:g}" if found.rewards else "none got a reward"
    return (
        f"the reward does not vary: {found.answers} answers to {found.questions} questions were rated before the first "
        f"update and {said}, so there is nothing to learn from. Use easier questions, train by SFT first, or raise "
        "sampling.max_tokens; to train nevertheless: checks.forecast=false"
    )


def group_of(recipe: RolloutRecipe) -> int | None:
    """Answers that compete with each other; None for PPO, whose answers do not."""
    return recipe.group if isinstance(recipe, GRPORecipe) else None


def panel_of(recipe: RolloutRecipe, found: XRay, findings: list[Finding]) -> Panel:
    """The panel of a run's reward."""
    name, title = panel_name(f"reward-{recipe.name}"), f"The reward of {recipe.name}"
    return reward_panel(name, title, found, findings, group_of(recipe))
