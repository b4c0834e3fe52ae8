"""The recipes of a study: what makes its data, its sections, and how its arms are measured."""

from pathlib import PurePath
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, field_validator, model_validator

from smolt.config.blocks import (
    Block,
    Data,
    EvaluationSampling,
    Float,
    Int,
    LoRA,
    Model,
    PathText,
    RewardMix,
    RewardPart,
    Sampling,
)
from smolt.config.judging import Endpoint, Judging
from smolt.config.rollout_stages import DistillRecipe, GRPORecipe, OnlineDPORecipe, PPORecipe
from smolt.config.stages import (
    DecideRecipe,
    DPORecipe,
    KTORecipe,
    Name,
    PretrainRecipe,
    RewardRecipe,
    Seed,
    SFTRecipe,
)
from smolt.errors import UserError


class PairsRecipe(Block):
    """Preferences from a policy's own answers, labelled by a reward (the best over the worst) or by a judge."""

    stage: Literal["pairs"] = "pairs"
    name: Name = Field(default="pairs", description="name of the run")
    seed: Seed = Field(default=0, description="seed of the sampling")
    model: Model = Field(description="the policy that answers")
    data: Data = Field(description="questions")
    samples: Int = Field(default=4, ge=2, description="answers per question")
    sampling: Sampling = Field(default=Sampling(), description="how answers are drawn")
    reward: RewardMix | None = Field(
        default=None, description="who rates: the best and the worst answer to a question become a pair"
    )
    judge: Judging | None = Field(
        default=None, description="or who judges: answers two by two, each pair in both orders, with soft weights"
    )
    gold: RewardMix | None = Field(
        default=None, description="a reward the judge's audit compares it with; never a label"
    )
    limit: Int | None = Field(default=None, ge=1, description="at most so many pairs")

    @model_validator(mode="after")
    def _one_labeller(self) -> "PairsRecipe":
        if (self.reward is None) == (self.judge is None):
            raise ValueError("give exactly one of reward (who rates) and judge (who judges)")
        if self.gold is not None and self.judge is None:
            raise ValueError("gold audits a judge; give a judge or remove gold")
        return self


class AnswersRecipe(Block):
    """Demonstrations from answers: of a model here or behind an address; with a reward the best of several."""

    stage: Literal["answers"] = "answers"
    name: Name = Field(default="answers", description="name of the run")
    seed: Seed = Field(default=0, description="seed of the sampling")
    model: Model | None = Field(default=None, description="the model on this machine that answers")
    endpoint: Endpoint | None = Field(default=None, description="or the model behind an address that does")
    data: Data = Field(description="questions")
    samples: Int = Field(default=1, ge=1, description="answers per question")
    sampling: Sampling = Field(default=Sampling(), description="how answers are drawn")
    reward: RewardMix | None = Field(default=None, description="who rates them; null = nobody, and all are kept")
    keep: Literal["best", "all"] = Field(
        default="best", description="of rated answers: the best to each question, or all of at least `least`"
    )
    least: Float | None = Field(default=None, description="the lowest reward that is imitated; null = any")
    limit: Int | None = Field(default=None, ge=1, description="only the first so many questions")

    @model_validator(mode="after")
    def _parts_fit(self) -> "AnswersRecipe":
        if (self.model is None) == (self.endpoint is None):
            raise ValueError("give exactly one of model (on this machine) and endpoint (behind an address)")
        if self.reward is None and (self.least is not None or self.keep == "all"):
            raise ValueError("keep and least are about rated answers; give a reward or remove them")
        if self.keep == "all" and self.least is None:
            raise ValueError("keep: all needs least: without it bad answers would be imitated too")
        return self


class BestOfNRecipe(Block):
    """The answer a reward model likes best among n, the baseline every RL result stands beside (evaluated only)."""

    stage: Literal["best_of_n"] = "best_of_n"
    name: Name = Field(default="best_of_n", description="name of the arm")
    seed: Seed = Field(default=0, description="seed of the sampling")
    model: Model = Field(description="the policy that answers")
    reward_model: PathText = Field(description="the reward model's directory (in a study also its section's name)")
    n: Int = Field(default=8, ge=2, description="answers per question")
    sampling: Sampling = Field(default=Sampling(), description="how answers are drawn")


class ProblemsRecipe(Block):
    """Generated questions with checkable answers, and demonstrations, in known numbers."""

    stage: Literal["problems"] = "problems"
    name: Name = Field(default="problems", description="name of the data")
    seed: Seed = Field(default=0, description="seed of the problems")
    task: Literal["arithmetic", "support", "decisions"] = Field(
        default="arithmetic", description="word problems, support tickets, or decisions about tickets and answers"
    )
    train: Int = Field(default=2000, ge=1, description="training questions")
    dev: Int = Field(default=200, ge=0, description="questions to select on")
    test: Int = Field(default=500, ge=0, description="questions to measure on, once")
    demonstrations: Int = Field(default=2000, ge=0, description="answers to imitate, for SFT")
    brief: Float = Field(default=0.0, ge=0, le=1, description="share of them that give the result without its steps")
    careless: Float = Field(default=0.0, ge=0, le=1, description="share of a ticket's answers with one or two faults")
    facts: Int = Field(default=0, ge=0, description="lines of arithmetic in the text for pretraining")

    @model_validator(mode="after")
    def _fields_belong_to_the_task(self) -> "ProblemsRecipe":
        homes = {"brief": ("arithmetic",), "facts": ("arithmetic",), "careless": ("support", "decisions")}
        for field, tasks in homes.items():
            if getattr(self, field) and self.task not in tasks:
                raise ValueError(f"{field} is for task {' and '.join(tasks)}; remove it")
        return self


def _as_suite(given: Any) -> Any:
    """`scenarios` is the file that comes with smolt."""
    shipped = "{shipped}/data/scenarios.jsonl"
    if isinstance(given, dict):
        return {**given, "path": shipped} if given.get("path") == "scenarios" else given
    return shipped if given == "scenarios" else given


def _as_rater(given: Any) -> Any:
    """A path alone is a reward model's."""
    return {"name": "model", "path": given} if isinstance(given, str) else given


Prompts = Annotated[Data, BeforeValidator(_as_suite)]
Rater = Annotated[RewardPart, BeforeValidator(_as_rater)]


class Suites(Block):
    """Prompts that every arm answers besides the test questions, compared scenario by scenario."""

    prompts: tuple[Prompts, ...] = Field(
        default=("scenarios",), validate_default=True, min_length=1, description="scenarios, or files of prompts"
    )
    harmlessness: Rater | None = Field(default=None, description="who rates it: a reward model's directory, or a part")
    helpfulness: Rater | None = Field(default=None, description="the same")
    empathy: Rater | None = Field(default=None, description="the same, besides the word rule")

    @model_validator(mode="before")
    @classmethod
    def _prompts_alone(cls, given: Any) -> Any:
        if isinstance(given, str):
            return {"prompts": [given]}
        return {"prompts": given} if isinstance(given, list | tuple) else given

    @model_validator(mode="after")
    def _names_differ(self) -> "Suites":
        names = self.names
        if len(set(names)) < len(names):
            raise ValueError(f"two files of prompts have the name {max(names, key=names.count)}; rename one")
        return self

    @property
    def names(self) -> list[str]:
        """What each file of prompts is called: its name without its ending, other characters than letters as -."""
        stems = [PurePath(data.path).name.partition(".")[0] for data in self.prompts]
        return ["".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in stem) for stem in stems]

    @property
    def raters(self) -> dict[str, RewardPart]:
        """The raters that are set, by what they rate."""
        found = {"harmlessness": self.harmlessness, "helpfulness": self.helpfulness, "empathy": self.empathy}
        return {name: part for name, part in found.items() if part is not None}


REWARDED = ("ppo", "grpo", "online_dpo")
"""Stages that learn from a reward of their own answers."""

ARMS = ("sft", "dpo", "kto", *REWARDED, "distill", "best_of_n")
"""Stages whose models answer the final questions."""


DECIDING = ("pretrain", "sft", "dpo", "kto", "decide", *REWARDED, "distill")
"""Stages whose models decide, where `study.decisions` says what."""


class StudySettings(Block):
    """How a study measures its arms."""

    seeds: tuple[Seed, ...] = Field(default=(0,), min_length=1, description="each arm is trained once per seed")
    baseline: str = Field(default="sft", min_length=1, description="the arm the others are compared with")
    metric: Literal["accuracy", "reward"] | None = Field(
        default=None, description="the metric of the verdict; null = accuracy where a verifier judges, else reward"
    )
    test: Data | None = Field(default=None, description="final questions, used once")
    decisions: Data | None = Field(default=None, description="decisions that every arm makes, in place of test")
    reward: RewardMix | None = Field(default=None, description="who judges the answers in the evaluation")
    items: Int | None = Field(default=None, ge=1, description="at most so many test questions; null = all")
    sampling: EvaluationSampling = Field(default=EvaluationSampling(), description="how answers are drawn")
    samples: Int = Field(default=1, ge=1, description="answers per question")
    suites: Suites | None = Field(default=None, description="scenarios that every arm answers too")

    @property
    def arms(self) -> tuple[str, ...]:
        """Stages whose models are measured."""
        return ARMS if self.decisions is None else DECIDING

    @field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) < len(seeds):
            raise ValueError("the seeds must differ")
        return seeds

    @model_validator(mode="after")
    def _one_exam(self) -> "StudySettings":
        if self.decisions is not None and (self.test or self.reward or self.suites):
            raise ValueError("decisions stand in place of test, reward and suites; remove these, or decisions")
        return self


TrainingRecipe = (
    PretrainRecipe
    | SFTRecipe
    | RewardRecipe
    | DPORecipe
    | KTORecipe
    | DecideRecipe
    | PPORecipe
    | GRPORecipe
    | OnlineDPORecipe
    | DistillRecipe
)
StageRecipe = TrainingRecipe | PairsRecipe | AnswersRecipe | BestOfNRecipe | ProblemsRecipe


MADE = {
    **dict.fromkeys(DECIDING, ("model", "samples.jsonl")),
    "reward": ("model",),
    "pairs": ("preferences.jsonl",),
    "answers": ("demonstrations.jsonl", "candidates.jsonl"),
    "problems": ("train.jsonl", "dev.jsonl", "test.jsonl", "demonstrations.jsonl", "text.txt"),
    "best_of_n": ("candidates.jsonl",),
}
"""Stage -> what others read of its directory."""


class Section(Block):
    """One section of a study: its recipe, and the section (or "base") its model comes from."""

    name: Name = Field(description="the section's name; also its directory and its arm")
    source: str = Field(default="base", description="written `from:`: another section, or base")
    recipe: StageRecipe = Field(discriminator="stage", description="`{section}` in a path is that section's directory")


class StudyRecipe(Block):
    """Several stages from one file, compared with one another."""

    stage: Literal["study"] = "study"
    name: Name = Field(default="study", description="name of the study")
    seed: Seed = Field(default=0, description="seed of the sections that give none")
    model: Model | None = Field(default=None, description="the base model; null when a section pretrains it")
    lora: LoRA | None = Field(default=None, description="adapters of the sections that give none")
    data: Data | None = Field(default=None, description="data of the sections that give none")
    dev: Data | None = Field(default=None, description="dev data of the sections that give none")
    study: StudySettings = Field(default=StudySettings(), description="how the arms are measured")
    sections: tuple[Section, ...] = Field(default=(), description="in the order they run")

    @property
    def arms(self) -> list[str]:
        """Names of what is measured: the base model where it is the baseline, then every section with a policy."""
        base = ["base"] if self.study.baseline == "base" else []
        return base + [section.name for section in self.sections if section.recipe.stage in self.study.arms]

    def require_exam(self) -> None:
        """Refuse a study whose arms nobody could measure, before anything is trained.

        Raises:
            UserError: there are no final questions, or nobody rates the answers.
        """
        if not self.arms or self.study.decisions is not None:
            return
        if self.study.test is None:
            raise UserError("study.test: is missing: name the final questions (a file the training never sees)")
        if self.study.reward is None and not any(section.recipe.stage in REWARDED for section in self.sections):
            raise UserError(
                "study.reward: is missing: no ppo, grpo or online_dpo section has one to measure the arms with"
            )


Recipe = StageRecipe | StudyRecipe
STAGE_RECIPES: dict[str, type[StageRecipe]] = {
    kind.model_fields["stage"].default: kind for kind in get_args(StageRecipe)
}
