"""One frozen recipe per stage: what a run does is exactly what its recipe says.

Here are those that learn from what was written; PPO and GRPO are in `rollout_stages`.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from smolt.config.blocks import (
    Block,
    Bool,
    Budget,
    Data,
    Float,
    Int,
    LoRA,
    Machine,
    Model,
    Optim,
    Save,
    Watch,
    stage_defaults,
)


def _name(text: str) -> str:
    """A name becomes a directory: letters, digits, dot, dash and underscore."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,99}", text):
        raise ValueError("a name is made of letters, digits, . - and _, and starts with a letter or digit")
    return text


def _epochs_by_default(budget: Budget) -> Budget:
    """Offline stages make one pass unless told otherwise."""
    if budget.like is not None:
        raise ValueError("budget.like is for sft in a study; give updates or epochs")
    if budget.updates is None and budget.epochs is None:
        return budget.model_copy(update={"epochs": 1.0})
    return budget


def _sft_budget(budget: Budget) -> Budget:
    """One pass by default, or as long as another section of the study."""
    return budget if budget.like is not None else _epochs_by_default(budget)


Name = Annotated[str, AfterValidator(_name)]
Seed = Annotated[Int, Field(ge=0, lt=2**32)]
OfflineBudget = Annotated[Budget, AfterValidator(_epochs_by_default)]


class Vocabulary(Block):
    """The tokenizer that pretraining learns from its text."""

    vocab: Int = Field(default=4096, ge=260, le=1_000_000, description="tokens in the vocabulary")
    digits: Bool = Field(default=True, description="one token per digit")


class Shape(Block):
    """The size of a model made from nothing."""

    architecture: Literal["llama"] = Field(default="llama", description="the family of the model")
    hidden: Int = Field(default=256, ge=8, description="width of the residual stream")
    layers: Int = Field(default=6, ge=1, description="transformer blocks")
    heads: Int = Field(default=8, ge=1, description="query heads")
    kv_heads: Int | None = Field(default=None, ge=1, description="key and value heads; null = as many as heads")
    mlp: Int | None = Field(
        default=None, ge=8, description="width of the feed-forward part; null = 8/3 of hidden, to 64ths"
    )
    window: Int = Field(default=512, ge=8, description="tokens of context")

    @model_validator(mode="after")
    def _divides(self) -> "Shape":
        if self.hidden % (2 * self.heads):
            raise ValueError(f"hidden {self.hidden} must be a multiple of 2 * heads = {2 * self.heads}")
        if self.heads % (self.kv_heads or self.heads):
            raise ValueError(f"heads {self.heads} must be a multiple of kv_heads {self.kv_heads}")
        return self


class PretrainRecipe(Block):
    """A tokenizer and a small model from plain text."""

    stage: Literal["pretrain"] = "pretrain"
    name: Name = Field(default="pretrain", description="name of the run")
    seed: Seed = Field(default=0, description="seed of everything random")
    model: Machine = Field(default=Machine(), description="device, dtype and threads (the model itself is made here)")
    optim: Annotated[Optim, stage_defaults(lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1)] = Field(
        default={}, validate_default=True, description="optimizer"
    )
    budget: OfflineBudget = Field(default=Budget(), validate_default=True, description="how long; 1 epoch unless given")
    data: Data = Field(description="plain text files")
    dev: Data | None = Field(default=None, description="held-out text")
    watch: Watch = Field(default=Watch(), description="evaluation while training")
    save: Save = Field(default=Save(), description="checkpoints")
    tokenizer: Vocabulary = Field(default=Vocabulary(), description="the tokenizer to learn")
    shape: Shape = Field(default=Shape(), description="the model to make")
    optimizer: Literal["adamw", "muon"] = Field(
        default="adamw", description="muon: for the matrices of the blocks (2502.16982), AdamW for the rest"
    )
    batch: Int = Field(default=32, ge=1, description="rows of `shape.window` tokens per update")


class SFTRecipe(Block):
    """Supervised fine-tuning on demonstrations."""

    stage: Literal["sft"] = "sft"
    name: Name = Field(default="sft", description="name of the run")
    seed: Seed = Field(default=0, description="seed of everything random")
    model: Model = Field(description="the model to start from")
    lora: LoRA | None = Field(default=None, description="adapters; null = all weights")
    optim: Annotated[Optim, stage_defaults(lr=5e-5)] = Field(default={}, validate_default=True, description="optimizer")
    budget: Annotated[Budget, AfterValidator(_sft_budget)] = Field(
        default=Budget(), validate_default=True, description="how long; 1 epoch unless given"
    )
    data: Data = Field(description="demonstrations")
    dev: Data | None = Field(default=None, description="held-out demonstrations")
    watch: Watch = Field(default=Watch(), description="evaluation while training")
    save: Save = Field(default=Save(), description="checkpoints")
    batch: Int = Field(default=16, ge=1, description="answers per update")


class RewardRecipe(Block):
    """A reward model from preferences (Bradley-Terry, 2203.02155)."""

    stage: Literal["reward"] = "reward"
    name: Name = Field(default="reward", description="name of the run")
    seed: Seed = Field(default=0, description="seed of everything random")
    model: Model = Field(description="the model to start from")
    lora: LoRA | None = Field(default=None, description="adapters; null = all weights")
    optim: Annotated[Optim, stage_defaults(lr=2e-5)] = Field(default={}, validate_default=True, description="optimizer")
    budget: OfflineBudget = Field(default=Budget(), validate_default=True, description="how long; 1 epoch unless given")
    data: Data = Field(description="preferences")
    dev: Data | None = Field(default=None, description="held-out preferences")
    watch: Watch = Field(default=Watch(), description="evaluation while training")
    save: Save = Field(default=Save(), description="checkpoints")
    batch: Int = Field(default=8, ge=1, description="pairs per update")
    centering: Float = Field(default=0.01, ge=0, description="weight of (r_chosen + r_rejected)^2 (2312.09244)")
    margin: Float = Field(default=0.0, ge=0, description="wanted difference r_chosen - r_rejected")
    gate: Bool = Field(
        default=True, description="refuse, as a reward, a model no better than the best trivial baseline"
    )


USUAL: dict[str, dict[str, float]] = {"simpo": {"beta": 2.0, "gamma": 1.0}, "orpo": {"nll": 1.0}, "cpo": {"nll": 1.0}}
"""The losses without a reference, with the defaults that are theirs."""


class DPORecipe(Block):
    """DPO (2305.18290), IPO (2310.12036), SimPO (2405.14734), ORPO (2403.07691) or CPO (2401.08417)."""

    stage: Literal["dpo"] = "dpo"
    name: Name = Field(default="dpo", description="name of the run")
    seed: Seed = Field(default=0, description="seed of everything random")
    model: Model = Field(description="the policy to start from; also the reference, where the loss has one")
    lora: LoRA | None = Field(default=None, description="adapters; null = all weights")
    optim: Annotated[Optim, stage_defaults(lr=5e-6)] = Field(default={}, validate_default=True, description="optimizer")
    budget: OfflineBudget = Field(default=Budget(), validate_default=True, description="how long; 1 epoch unless given")
    data: Data = Field(description="preferences")
    dev: Data | None = Field(default=None, description="held-out preferences")
    watch: Watch = Field(default=Watch(), description="evaluation while training")
    save: Save = Field(default=Save(), description="checkpoints")
    batch: Int = Field(default=8, ge=1, description="pairs per update")
    loss: Literal["sigmoid", "ipo", "simpo", "orpo", "cpo"] = Field(
        default="sigmoid", description="sigmoid = DPO; simpo, orpo and cpo need no reference"
    )
    beta: Float = Field(
        default=0.1,
        gt=0,
        description="leash to the reference (sigmoid, tau in ipo), scale of the log-probabilities (cpo; simpo: 2 "
        "unless given), weight of the odds ratio (orpo)",
    )
    gamma: Float = Field(default=0.0, ge=0, description="simpo: margin of beta times the lead; 1 unless given")
    nll: Float = Field(
        default=0.0, ge=0, description="weight of the better answers' loss per token; orpo and cpo: 1 unless given"
    )
    label_smoothing: Float = Field(default=0.0, ge=0, lt=0.5, description="share of labels taken to be wrong")

    @model_validator(mode="before")
    @classmethod
    def _as_usual_for_the_loss(cls, given: Any) -> Any:
        usual = USUAL.get(str(given.get("loss")), {}) if isinstance(given, dict) else {}
        return {**usual, **given} if usual else given

    @model_validator(mode="after")
    def _fields_belong_to_the_loss(self) -> "DPORecipe":
        if self.label_smoothing > 0 and self.loss not in ("sigmoid", "cpo"):
            raise ValueError("label_smoothing is for loss sigmoid and cpo; remove it, or write one of these")
        if self.gamma > 0 and self.loss != "simpo":
            raise ValueError("gamma is for loss simpo; remove it, or write loss: simpo")
        return self

    @property
    def reference_free(self) -> bool:
        """Whether the loss asks nothing of the model it started from."""
        return self.loss in USUAL


class KTORecipe(Block):
    """Kahneman-Tversky optimization (2402.01306): answers that are desirable or not, without pairs."""

    stage: Literal["kto"] = "kto"
    name: Name = Field(default="kto", description="name of the run")
    seed: Seed = Field(default=0, description="seed of everything random")
    model: Model = Field(description="the policy to start from; also the reference")
    lora: LoRA | None = Field(default=None, description="adapters; null = all weights")
    optim: Annotated[Optim, stage_defaults(lr=5e-6)] = Field(default={}, validate_default=True, description="optimizer")
    budget: OfflineBudget = Field(default=Budget(), validate_default=True, description="how long; 1 epoch unless given")
    data: Data = Field(description="feedback; of preferences the chosen answer is desirable, the rejected one is not")
    dev: Data | None = Field(default=None, description="held-out feedback")
    watch: Watch = Field(default=Watch(), description="evaluation while training")
    save: Save = Field(default=Save(), description="checkpoints")
    batch: Int = Field(default=16, ge=2, description="answers per update; each context is also read with another's")
    beta: Float = Field(default=0.1, gt=0, description="strength of the leash to the reference")
    desirable_weight: Float = Field(default=1.0, gt=0, description="weight of a desirable answer")
    undesirable_weight: Float = Field(default=1.0, gt=0, description="weight of an undesirable answer")


class DecideRecipe(Block):
    """Typed decisions: the probability of each answer to a choice, a score or a noul, learned from what is expected."""

    stage: Literal["decide"] = "decide"
    name: Name = Field(default="decide", description="name of the run")
    seed: Seed = Field(default=0, description="seed of everything random")
    model: Model = Field(description="the model to start from")
    lora: LoRA | None = Field(default=None, description="adapters; null = all weights")
    optim: Annotated[Optim, stage_defaults(lr=2e-5)] = Field(default={}, validate_default=True, description="optimizer")
    budget: OfflineBudget = Field(default=Budget(), validate_default=True, description="how long; 1 epoch unless given")
    data: Data = Field(description="decisions, with what is expected")
    dev: Data | None = Field(default=None, description="held-out decisions; a temperature is fitted on them")
    watch: Watch = Field(default=Watch(), description="evaluation while training")
    save: Save = Field(default=Save(), description="checkpoints")
    batch: Int = Field(default=16, ge=1, description="decisions per update")
    loss: Literal["cross_entropy", "brier"] = Field(
        default="cross_entropy", description="of the options' probabilities: log score, or Brier score"
    )
    calibrate: Bool = Field(
        default=True, description="save the temperature of each type of question that is best on dev"
    )
