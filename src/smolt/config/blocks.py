"""The shared blocks of every recipe: frozen, checked, and each field either honoured or refused."""

import math
import os
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Strict, field_validator, model_validator

from smolt.config.complaints import suggestion

_WORDED = ("format", "sentiment", "length", "overlong", "exact_words", "constraints", "refusal", "empathy")
RULE_NAMES = ("gsm8k", "gym", "confidence", "probabilities", *_WORDED)
"""The raters that need neither a path nor a model."""

REWARDS = (*RULE_NAMES, "model", "ensemble", "judge", "decision", "python")
"""What a part of a reward may be; `smolt.rewards.build` makes each of them."""

MEASURES = ("updates", "epochs", "like")  # what a budget may be measured in, one at a time

LENGTHS = ("longer", "shorter")
"""What else a judge may go by."""

SHIPPED = Path(str(files("smolt"))) / "recipes"
"""The recipes that come with smolt, and their data."""


def as_number(value: object) -> object:
    """Let a quoted number such as ``"1e-4"`` pass for a float, and refuse true and false.

    Raises:
        ValueError: for a truth value or a text that is no finite number.
    """
    if isinstance(value, bool):
        raise ValueError("must be a number, not true or false")
    if isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            raise ValueError("must be a number") from None
        if not math.isfinite(number):
            raise ValueError("must be a finite number")
        return number
    return value


def as_path(value: object) -> object:
    """Accept `pathlib.Path` where a text is expected, and put the place of smolt's own data for ``{shipped}``.

    Raises:
        ValueError: for an empty text, or one with a zero byte, which no file system can hold.
    """
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if value == "":
        raise ValueError("must not be empty")
    if isinstance(value, str) and "\0" in value:
        raise ValueError("a path holds no zero byte")
    return value.replace("{shipped}", str(SHIPPED)) if isinstance(value, str) else value


def as_targets(value: object) -> object:
    """Tell the two ways to write LoRA's targets apart before the type does, for one clear message.

    Raises:
        ValueError: for anything but all-linear or a list of module names.
    """
    if value == "all-linear":
        return value
    if isinstance(value, list | tuple) and value and all(isinstance(name, str) and name for name in value):
        return value
    raise ValueError("must be all-linear or a list of module names, such as [q_proj, v_proj]")


Int = Annotated[int, Strict()]
Bool = Annotated[bool, Strict()]
Float = Annotated[float, BeforeValidator(as_number)]
PathText = Annotated[str, BeforeValidator(as_path)]
Device = Literal["auto", "cpu", "cuda", "mps"]
DType = Literal["auto", "fp32", "bf16", "fp16"]


class Block(BaseModel):
    """What all recipes and blocks share: nothing can be changed after reading, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())


def stage_defaults(**values: object) -> BeforeValidator:
    """Give a shared block the defaults of one stage: they fill the fields the user left out."""

    def fill(given: object) -> object:
        return {**values, **given} if isinstance(given, dict) else given

    return BeforeValidator(fill)


def from_text(field: str) -> Callable[[object], object]:
    """Accept the block's one telling field alone: ``model: DIR`` for ``model: {path: DIR}``."""

    def expand(given: object) -> object:
        given = as_path(given)
        return {field: given} if isinstance(given, str) else given

    return expand


def refuse_half_on_cpu(device: str, dtype: str) -> None:
    """Raise ValueError for fp16 on the CPU: it overflows there and is not faster."""
    if device == "cpu" and dtype == "fp16":
        raise ValueError("fp16 is not for the cpu (it overflows and is slower); write dtype: bf16 or fp32")


class Machine(Block):
    """Where and how precisely to compute, without a model (pretraining makes its own)."""

    device: Device = Field(default="auto", description="auto takes cuda, then mps, then cpu")
    dtype: DType = Field(default="auto", description="auto: bf16 where a card has it; cpu: the faster, measured")
    threads: Int | None = Field(default=None, ge=1, description="torch threads; null = the fastest number, measured")

    @model_validator(mode="after")
    def _precision_fits_device(self) -> "Machine":
        refuse_half_on_cpu(self.device, self.dtype)
        return self


class Model(Block):
    """The model to start from, and where and how precisely to compute."""

    path: PathText = Field(description="a model or adapter directory, a GGUF file, or a hub name")
    device: Device = Field(default="auto", description="auto takes cuda, then mps, then cpu")
    dtype: DType = Field(default="auto", description="auto: bf16 where a card has it; cpu: the faster, measured")
    threads: Int | None = Field(default=None, ge=1, description="torch threads; null = the fastest number, measured")
    window: Int | None = Field(
        default=None, ge=2, description="most tokens of context and answer; null = the model's own"
    )
    style: Literal["chat", "thinking", "dialogue", "plain", "question"] | None = Field(
        default=None, description="how turns become text; null = as saved, else by the chat template, else question"
    )

    @model_validator(mode="before")
    @classmethod
    def _path_alone(cls, given: Any) -> Any:
        return from_text("path")(given)

    @model_validator(mode="after")
    def _precision_fits_device(self) -> "Model":
        refuse_half_on_cpu(self.device, self.dtype)
        return self


class LoRA(Block):
    """Low-rank adapters (2106.09685); `lora: null` trains all weights."""

    rank: Int = Field(default=16, ge=1, le=4096, description="rank of each adapter")
    alpha: Float = Field(default=32.0, gt=0, description="the adapter's output is scaled by alpha / rank")
    dropout: Float = Field(
        default=0.0, ge=0, lt=1, description="dropout before the adapter; 0 where answers are sampled"
    )
    targets: Annotated[tuple[str, ...] | Literal["all-linear"], BeforeValidator(as_targets)] = Field(
        default="all-linear", description="module names that get an adapter, or all-linear"
    )
    scaling: Literal["rank", "root"] = Field(
        default="rank", description="alpha over rank, or over its root (2312.03732)"
    )
    dora: Bool = Field(default=False, description="direction and size of a weight apart (DoRA, 2402.09353); slower")
    plus: Float = Field(default=1.0, ge=1, description="LoRA+ (2402.12354): B learns so many times as fast as A")


class Optim(Block):
    """AdamW and its schedule. Steps are updates, never micro-batches."""

    lr: Float = Field(default=1e-5, gt=0, le=1, description="peak learning rate")
    schedule: Literal["constant", "linear", "cosine"] = Field(default="cosine", description="decay after the warm-up")
    warmup: Int = Field(default=0, ge=0, description="updates of linear warm-up")
    weight_decay: Float = Field(default=0.0, ge=0, description="decoupled weight decay")
    betas: tuple[Float, Float] = Field(default=(0.9, 0.999), description="Adam's two averaging rates, each in [0, 1)")
    eps: Float = Field(default=1e-8, gt=0, description="Adam's epsilon")
    clip: Float = Field(default=1.0, ge=0, description="largest gradient norm; 0 = off")
    divergence: Float = Field(
        default=3.0, ge=0, description="nats of loss above update 1 that end a training; 0 = never"
    )

    @field_validator("betas")
    @classmethod
    def _betas_in_range(cls, betas: tuple[float, float]) -> tuple[float, float]:
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError("must both lie in [0, 1)")
        return betas


class Budget(Block):
    """How long to train and how much memory to use. Updates or epochs, never both; minutes cut them to what fits."""

    updates: Int | None = Field(default=None, ge=1, description="optimizer updates (ppo, grpo: rollouts)")
    epochs: Float | None = Field(default=None, gt=0, description="passes over the data")
    minutes: Float | None = Field(
        default=None,
        gt=0,
        description="only as many updates as fit, by their measured pace; ppo, grpo: alone enough",
    )
    memory: Float = Field(
        default=4.0, gt=0, description="GiB for activations; decides the micro-batch, never the result"
    )
    checkpointing: Literal["auto", "always", "never"] = Field(
        default="auto",
        description="compute each layer again in the backward pass instead of keeping its inside: slower, and never "
        "another result; auto: where the longest rows alone do not fit into `memory` otherwise",
    )
    refuse: Bool = Field(
        default=True, description="refuse a training that by its estimate cannot fit into the free memory"
    )
    like: str | None = Field(
        default=None, min_length=1, description="train as many seconds as this study section took (sft)"
    )

    @model_validator(mode="after")
    def _one_measure(self) -> "Budget":
        given = [name for name in MEASURES if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"give one of {' and '.join(given)}, not {len(given)}; remove the other or set it to null")
        if self.like is not None and self.minutes is not None:
            raise ValueError("give minutes or like, not both")
        return self


class Data(Block):
    """A file of records: JSONL, Parquet or a data set directory, its format detected unless given."""

    path: PathText = Field(description="file or directory; `{section}/file` of a study, `{shipped}/file` of smolt")
    split: str | None = Field(default=None, description="split of a data set with several")
    format: str | None = Field(default=None, description="name of the record format; null = detected")
    fields: dict[str, str] = Field(default_factory=dict, description="column to read for each field of the format")
    half: Literal["a", "b"] | None = Field(
        default=None, description="only one half of the records, chosen by their first question: a and b share none"
    )
    limit: Int | None = Field(default=None, ge=1, description="use only the first so many records")
    too_long: Literal["error", "drop"] = Field(default="error", description="records that exceed the window")
    skip_bad: Bool = Field(default=False, description="skip and count unreadable records instead of stopping")

    @model_validator(mode="before")
    @classmethod
    def _path_alone(cls, given: Any) -> Any:
        return from_text("path")(given)


class Watch(Block):
    """Evaluation on dev data while training, and what it decides."""

    every: Int = Field(default=0, ge=0, description="updates between evaluations; 0 = only at the end")
    metric: str | None = Field(default=None, min_length=1, description="metric that decides; null = the stage's own")
    patience: Int = Field(
        default=0, ge=0, description="evaluations without improvement before stopping; 0 = never stop early"
    )
    items: Int | None = Field(default=None, ge=1, description="at most so many dev records; null = all")
    best: Bool = Field(default=True, description="the final model is the best evaluated one, not the last")


class Checks(Block):
    """What is looked at while a training begins, besides the checks that nothing can turn off."""

    forecast: Bool = Field(
        default=True, description="what the first 128 answers say of the reward; one that never varies is refused"
    )


class Save(Block):
    """Checkpoints to continue from."""

    every: Int = Field(
        default=0, ge=0, description="updates between checkpoints; 0 = by time, at the end and when interrupted"
    )
    minutes: Float | None = Field(
        default=5, gt=0, description="minutes between checkpoints, longer where one takes long; null = none by time"
    )
    keep: Int = Field(default=2, ge=1, description="verified checkpoints to keep")


class Sampling(Block):
    """How answers are drawn while learning: plain temperature sampling, nothing that training would not reproduce."""

    max_tokens: Int = Field(default=256, ge=1, description="longest answer, its stop token included")
    temperature: Float = Field(
        default=1.0, gt=0, description="divides the logits, in sampling and in every log-probability"
    )
    batch: Int = Field(default=64, ge=1, description="answers decoded side by side")


class Correction(Block):
    """Truncated importance weights for tokens whose sampler and training forward differ (rollout mismatch)."""

    weights: Literal["auto", "always", "never"] = Field(
        default="auto",
        description="weigh each token by its probability in training over that in sampling; auto: in "
        "half precision, where the two are rounded differently",
    )
    cap: Float = Field(default=2.0, ge=1, description="largest weight")


class EvaluationSampling(Block):
    """How answers are drawn for evaluation."""

    max_tokens: Int = Field(default=256, ge=1, description="longest answer, its stop token included")
    temperature: Float = Field(default=0.0, ge=0, description="0 = greedy")
    batch: Int = Field(default=64, ge=1, description="answers decoded side by side")


class ChatSampling(Block):
    """How answers are drawn in a conversation."""

    max_tokens: Int = Field(default=512, ge=1, description="longest answer, its stop token included")
    temperature: Float = Field(default=0.7, ge=0, description="0 = greedy")
    top_p: Float = Field(
        default=1.0, gt=0, le=1, description="keep the likeliest tokens that hold this much probability"
    )
    top_k: Int = Field(default=0, ge=0, description="keep the k likeliest tokens; 0 = all")
    repetition: Float = Field(
        default=1.0, ge=1, description="penalty of tokens the answer holds already, 1.1 to 1.3 against loops; 1 = off"
    )
    seed: Int = Field(default=0, ge=0, description="the same seed gives the same answers")


class KL(Block):
    """PPO's leash to the reference: a per-token penalty -coefficient * (log pi - log ref) in the reward."""

    coefficient: Float = Field(default=0.05, ge=0, description="weight of the penalty (its start when adaptive)")
    mode: Literal["fixed", "adaptive"] = Field(default="fixed", description="adaptive: steer to `target` (1909.08593)")
    target: Float | None = Field(default=None, gt=0, description="adaptive: wanted KL per answer, in nats")
    horizon_gain: Float = Field(
        default=0.1, gt=0, description="adaptive: K in coefficient *= 1 + K clip(KL/target - 1, +-0.2)"
    )
    stop: Float | None = Field(
        default=None, gt=0, description="the inner epochs end when KL(old, new) per token exceeds 1.5 times this"
    )
    budget: Float | None = Field(default=None, gt=0, description="the run ends when the KL per answer exceeds this")

    @model_validator(mode="after")
    def _target_belongs_to_adaptive(self) -> "KL":
        if self.mode == "adaptive" and self.target is None:
            raise ValueError("mode adaptive needs a target (nats per answer)")
        if self.mode == "fixed" and self.target is not None:
            raise ValueError("target is for mode adaptive; write mode: adaptive or remove target")
        return self


ANSWER_SECONDS = 10.0


class RewardPart(Block):
    """One rater and its weight."""

    name: str = Field(
        min_length=1,
        description=f"{', '.join(REWARDS[:-1])} or {REWARDS[-1]}",
    )
    weight: Float = Field(default=1.0, description="factor on this part's score")
    path: PathText | None = Field(
        default=None, description="a model's directory; decision: also a server; python: file.py:function"
    )
    options: dict[str, Any] = Field(default_factory=dict, description="the rater's own settings")
    seconds: Float = Field(default=ANSWER_SECONDS, gt=0, description="python: an answer that takes longer abstains")

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, given: Any) -> Any:
        return {"name": given} if isinstance(given, str) else given

    @field_validator("name")
    @classmethod
    def _is_known(cls, name: str) -> str:
        if name not in (*REWARDS, *LENGTHS):
            raise ValueError(f"{name[:60]!a} is unknown" + suggestion(name, REWARDS))
        return name

    @model_validator(mode="after")
    def _path_where_needed(self) -> "RewardPart":
        wanted = {"model": "a reward model directory", "python": "file.py:function", "decision": "a model or address"}
        if self.name in wanted and self.path is None:
            raise ValueError(f"reward {self.name} needs a path ({wanted[self.name]})")
        return self


class RewardMix(Block):
    """The reward of an answer: the weighted sum of its parts. ``reward: gsm8k`` and a plain list are accepted."""

    parts: tuple[RewardPart, ...] = Field(min_length=1, description="the raters")
    cap: Float | None = Field(default=None, gt=0, description="the sum is clipped to [-cap, cap]; null = not clipped")

    @model_validator(mode="before")
    @classmethod
    def _shorthand(cls, given: Any) -> Any:
        if isinstance(given, str):
            return {"parts": [given]}
        if isinstance(given, list | tuple):
            return {"parts": list(given)}
        if isinstance(given, dict) and "name" in given:
            return {"parts": [given]}
        return given
