"""The recipes of the stages that learn from the policy's own answers: PPO, GRPO, online DPO and distillation."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from smolt.config.blocks import (
    KL,
    Block,
    Bool,
    Budget,
    Checks,
    Correction,
    Data,
    Float,
    Int,
    LoRA,
    Model,
    Optim,
    PathText,
    RewardMix,
    Sampling,
    Save,
    Watch,
    from_text,
    stage_defaults,
)
from smolt.config.judging import as_address
from smolt.config.stages import Name, Seed

FEWER = "; lower inner.minibatches, or take more prompts"


def _updates_only(budget: Budget) -> Budget:
    """Stages that sample count rollouts; minutes alone let the clock decide how many."""
    if budget.epochs is not None:
        raise ValueError("epochs do not apply: one update is one rollout; give updates")
    if budget.like is not None:
        raise ValueError("budget.like is for sft in a study; give updates")
    clock = budget.minutes is not None
    return budget if clock or budget.updates is not None else budget.model_copy(update={"updates": 100})


def _no_dropout(lora: LoRA | None) -> LoRA | None:
    """Sampled and recomputed log-probabilities agree only without dropout."""
    if lora is not None and lora.dropout > 0:
        raise ValueError("dropout is off where answers are sampled; remove dropout or set it to 0")
    return lora


class AnswerServer(Block):
    """A server that writes the answers: `smolt serve` or vLLM. `server: http://HOST:PORT/v1` is enough."""

    url: str = Field(min_length=1, description="base address, such as http://127.0.0.1:8000/v1")
    model: str | None = Field(default=None, min_length=1, description="the model's name there; null = the only one")
    key: str | None = Field(
        default=None, min_length=1, description="environment variable with the key; null = SMOLT_API_KEY if it is set"
    )
    timeout: Float = Field(default=600.0, gt=0, description="seconds for all answers to one question")
    attempts: Int = Field(default=5, ge=1, description="tries for one request, with growing pauses")
    parallel: Int = Field(default=4, ge=1, le=64, description="questions under way at once")
    max_age: Int = Field(
        default=0, ge=0, description="updates by which answers may lag behind the weights; 0 = pushed before each"
    )

    @model_validator(mode="before")
    @classmethod
    def _url_alone(cls, given: Any) -> Any:
        return from_text("url")(given)

    @field_validator("url")
    @classmethod
    def _is_http(cls, url: str) -> str:
        return as_address(url).removesuffix("/completions")


def check_server(server: AnswerServer | None, lora: LoRA | None, budget: Budget, weighed: bool = True) -> None:
    """Refuse answers that would lag behind by more than the recipe permits, or that nothing would correct.

    Raises:
        ValueError: all weights are trained, and only adapters can be pushed; or lagging answers are not weighed.
    """
    if server is None:
        return
    age = server.max_age
    if age and not weighed:
        raise ValueError(f"server.max_age {age} lets answers lag behind, so they are weighed; remove weights: never")
    if lora is None and (budget.updates is None or budget.updates > age + 1):
        raise ValueError(
            "server: all weights are trained, and only an adapter can be pushed to a server; add lora: {}, or let its "
            f"answers grow old: budget.updates {age + 1} at most with server.max_age {age}"
        )


RolloutBudget = Annotated[Budget, AfterValidator(_updates_only)]
StillLoRA = Annotated[LoRA | None, AfterValidator(_no_dropout)]


class Inner(Block):
    """How often one rollout is learned from. One epoch of one minibatch is strictly on-policy."""

    epochs: Int = Field(default=1, ge=1, le=100, description="passes over one rollout")
    minibatches: Int = Field(default=1, ge=1, description="optimizer steps per pass")


class GAE(Block):
    """Generalised advantage estimation (1506.02438)."""

    gamma: Float = Field(default=1.0, ge=0, le=1, description="discount per token")
    lam: Float = Field(default=0.95, ge=0, le=1, description="0 = one-step, 1 = whole returns")


class MissingStop(Block):
    """What happens to the reward of an answer cut off before its stop token."""

    mode: Literal["subtract", "replace", "none"] = Field(
        default="subtract", description="subtract `value` from the reward, replace the reward by -value, or leave it"
    )
    value: Float = Field(default=1.0, ge=0, description="the penalty, a positive number")


class Critic(Block):
    """The value model."""

    trunk: Literal["own", "policy"] = Field(
        default="own",
        description="own = an adapter or a copy; policy = a head on the policy's states, which learn from both",
    )
    lr_scale: Float = Field(default=5.0, gt=0, description="its learning rate as a multiple of optim.lr")
    warmup: Int = Field(default=2, ge=0, description="first updates in which only the critic learns")
    weight: Float = Field(default=0.5, gt=0, description="weight of the value loss where the trunk is shared")
    clip: Float | None = Field(
        default=None, gt=0, description="values move at most this far from the old ones; null = off"
    )
    start: Literal["zero", "reward"] = Field(default="zero", description="a zero head, or the reward model's weights")
    path: PathText | None = Field(
        default=None, description="start reward: its directory; null = the reward's model part"
    )

    @model_validator(mode="after")
    def _path_belongs_to_reward(self) -> "Critic":
        if self.path is not None and self.start != "reward":
            raise ValueError("path is for start: reward; write start: reward or remove path")
        if self.trunk == "policy" and self.start != "zero":
            raise ValueError("start reward needs weights of its own; write trunk: own or remove start")
        return self


class PPORecipe(Block):
    """Proximal policy optimization (1909.08593, 2403.17031)."""

    stage: Literal["ppo"] = "ppo"
    name: Name = Field(default="ppo", description="name of the run")
    seed: Seed = Field(default=0, description="seed of everything random")
    model: Model = Field(description="the policy to start from; also the reference")
    lora: StillLoRA = Field(default=None, description="adapters; null = all weights")
    optim: Annotated[Optim, stage_defaults(lr=5e-6, eps=1e-5)] = Field(
        default={}, validate_default=True, description="optimizer"
    )
    budget: RolloutBudget = Field(default=Budget(), validate_default=True, description="updates; 100 unless given")
    data: Data = Field(description="questions")
    dev: Data | None = Field(default=None, description="held-out questions")
    watch: Watch = Field(default=Watch(), description="evaluation while training")
    save: Save = Field(default=Save(), description="checkpoints")
    checks: Checks = Field(default=Checks(), description="before the first update")
    sampling: Sampling = Field(default=Sampling(), description="how answers are drawn")
    correction: Correction = Field(default=Correction(), description="where sampler and training differ")
    server: AnswerServer | None = Field(default=None, description="who writes the answers; null = smolt itself")
    prompts: Int = Field(default=32, ge=1, description="questions per update")
    samples: Int = Field(default=1, ge=1, description="answers per question")
    inner: Annotated[Inner, stage_defaults(epochs=4, minibatches=4)] = Field(
        default={}, validate_default=True, description="learning from one rollout"
    )
    gae: GAE = Field(default=GAE(), description="advantages")
    clip: Float = Field(default=0.2, gt=0, lt=1, description="the ratio counts within 1 - clip .. 1 + clip")
    kl: KL = Field(default=KL(), description="the leash to the reference")
    reward: RewardMix = Field(description="what is rewarded")
    missing_stop: MissingStop = Field(default=MissingStop(), description="answers without a stop token")
    critic: Critic = Field(default=Critic(), description="the value model")

    @model_validator(mode="after")
    def _parts_fit(self) -> "PPORecipe":
        answers = self.prompts * self.samples
        check_server(self.server, self.lora, self.budget, self.correction.weights != "never")
        if self.inner.minibatches > answers:
            raise ValueError(f"inner.minibatches {self.inner.minibatches} exceeds prompts * samples = {answers}{FEWER}")
        models = [part for part in self.reward.parts if part.name == "model"]
        if self.critic.start == "reward" and self.critic.path is None and len(models) != 1:
            raise ValueError("critic.start reward needs critic.path, for the reward has not exactly one model part")
        return self

    @property
    def answers(self) -> int:
        """Answers to a question of one update."""
        return self.samples


class Advantage(Block):
    """How a group's rewards become advantages (2402.03300, 2503.20783, 2402.14740)."""

    baseline: Literal["mean", "leave_one_out"] = Field(
        default="mean", description="leave_one_out = mean of the others (RLOO)"
    )
    scale: Literal["none", "group", "batch"] = Field(default="none", description="divide by which standard deviation")
    resample: Int = Field(
        default=0,
        ge=0,
        description="so often an update asks other questions in place of those without signal (DAPO, 2503.14476)",
    )


class Surrogate(Block):
    """The policy objective: PPO's clip, GSPO's sequence ratio (2507.18071) or CISPO (2506.13585)."""

    name: Literal["clip", "sequence", "cispo"] = Field(default="clip", description="which objective")
    low: Float = Field(default=0.2, gt=0, le=1, description="the ratio counts from 1 - low")
    high: Float = Field(default=0.28, gt=0, description="... to 1 + high")
    entropy: Float = Field(default=0.0, ge=0, description="weight of the entropy bonus at each token; 0 = none")


class LossKL(Block):
    """GRPO's leash to the reference: a term of the loss."""

    beta: Float = Field(default=0.02, ge=0, description="its weight; 0 = no reference is computed")
    estimator: Literal["k2", "k3", "k3_weighted"] = Field(
        default="k2", description="k2 and k3_weighted have the gradient of the reverse KL, plain k3 has not"
    )
    budget: Float | None = Field(
        default=None, gt=0, description="the run ends when the KL to the reference, nats an answer, exceeds it"
    )

    @model_validator(mode="after")
    def _budget_has_a_reference(self) -> "LossKL":
        if self.budget is not None and self.beta == 0:
            raise ValueError("budget needs beta > 0: at 0 no reference is computed")
        return self


class GRPORecipe(Block):
    """Group-relative policy optimization (2402.03300); the defaults are Dr. GRPO's scale with DAPO's token mean."""

    stage: Literal["grpo"] = "grpo"
    name: Name = Field(default="grpo", description="name of the run")
    seed: Seed = Field(default=0, description="seed of everything random")
    model: Model = Field(description="the policy to start from; also the reference")
    lora: StillLoRA = Field(default=None, description="adapters; null = all weights")
    optim: Annotated[Optim, stage_defaults(lr=5e-6)] = Field(default={}, validate_default=True, description="optimizer")
    budget: RolloutBudget = Field(default=Budget(), validate_default=True, description="updates; 100 unless given")
    data: Data = Field(description="questions")
    dev: Data | None = Field(default=None, description="held-out questions")
    watch: Watch = Field(default=Watch(), description="evaluation while training")
    save: Save = Field(default=Save(), description="checkpoints")
    checks: Checks = Field(default=Checks(), description="before the first update")
    sampling: Sampling = Field(default=Sampling(), description="how answers are drawn")
    correction: Correction = Field(default=Correction(), description="where sampler and training differ")
    server: AnswerServer | None = Field(default=None, description="who writes the answers; null = smolt itself")
    prompts: Int = Field(default=16, ge=1, description="questions per update")
    group: Int = Field(default=8, description="answers per question, at least 2")
    advantage: Advantage = Field(default=Advantage(), description="rewards to advantages")
    reduction: Literal["token", "answer", "constant"] = Field(
        default="token", description="mean over the update's tokens, per answer first, or over a constant length"
    )
    surrogate: Surrogate = Field(default=Surrogate(), description="the policy objective")
    kl: LossKL = Field(default=LossKL(), description="the leash to the reference")
    inner: Inner = Field(default=Inner(), description="learning from one rollout")
    keep_empty_groups: Bool = Field(default=False, description="keep groups whose rewards are all equal")
    truncated: Literal["keep", "mask"] = Field(default="keep", description="answers without a stop token")
    reward: RewardMix = Field(description="what is rewarded")

    @field_validator("group")
    @classmethod
    def _has_baseline(cls, group: int) -> int:
        if group == 1:
            raise ValueError("a group of 1 has no baseline; give at least 2 (8 is usual)")
        if group < 1:
            raise ValueError("must be at least 2")
        return group

    @model_validator(mode="after")
    def _minibatches_fit(self) -> "GRPORecipe":
        check_server(self.server, self.lora, self.budget, self.correction.weights != "never")
        if self.keep_empty_groups and self.advantage.resample:
            raise ValueError("advantage.resample replaces groups that keep_empty_groups keeps; remove one of them")
        if self.inner.minibatches > self.prompts:
            raise ValueError(f"inner.minibatches {self.inner.minibatches} exceeds prompts {self.prompts}{FEWER}")
        return self

    @property
    def answers(self) -> int:
        """Answers to a question of one update."""
        return self.group


class OnlineDPORecipe(Block):
    """Online DPO (2402.04792): pairs of the policy's own answers, labelled as they are written, with dpo's loss."""

    stage: Literal["online_dpo"] = "online_dpo"
    name: Name = Field(default="online_dpo", description="name of the run")
    seed: Seed = Field(default=0, description="seed of everything random")
    model: Model = Field(description="the policy to start from; also the reference")
    lora: StillLoRA = Field(default=None, description="adapters; null = all weights")
    optim: Annotated[Optim, stage_defaults(lr=5e-6)] = Field(default={}, validate_default=True, description="optimizer")
    budget: RolloutBudget = Field(default=Budget(), validate_default=True, description="updates; 100 unless given")
    data: Data = Field(description="questions")
    dev: Data | None = Field(default=None, description="held-out questions")
    watch: Watch = Field(default=Watch(), description="evaluation while training")
    save: Save = Field(default=Save(), description="checkpoints")
    checks: Checks = Field(default=Checks(), description="before the first update")
    sampling: Sampling = Field(default=Sampling(), description="how answers are drawn")
    server: AnswerServer | None = Field(default=None, description="who writes the answers; null = smolt itself")
    prompts: Int = Field(default=16, ge=1, description="questions per update")
    samples: Int = Field(default=2, ge=2, description="answers per question; the best and the worst are a pair")
    inner: Inner = Field(default=Inner(), description="learning from one rollout")
    loss: Literal["sigmoid", "ipo"] = Field(default="sigmoid", description="sigmoid = DPO")
    beta: Float = Field(default=0.1, gt=0, description="leash to the reference (tau in ipo)")
    label_smoothing: Float = Field(default=0.0, ge=0, lt=0.5, description="sigmoid: share of labels taken to be wrong")
    reward: RewardMix = Field(description="who says which answer is better: the one that gets more")

    @model_validator(mode="after")
    def _parts_fit(self) -> "OnlineDPORecipe":
        check_server(self.server, self.lora, self.budget)
        if self.inner.minibatches > self.prompts:
            raise ValueError(f"inner.minibatches {self.inner.minibatches} exceeds prompts {self.prompts}{FEWER}")
        if self.label_smoothing > 0 and self.loss != "sigmoid":
            raise ValueError("label_smoothing is for loss sigmoid; remove it, or write loss: sigmoid")
        return self

    @property
    def answers(self) -> int:
        """Answers to a question of one update."""
        return self.samples


class Teacher(Block):
    """Whom a student learns from. `teacher: DIR` is enough."""

    path: PathText = Field(
        description="a model or adapter directory, a GGUF file, or a hub name; its tokens are model's"
    )

    @model_validator(mode="before")
    @classmethod
    def _path_alone(cls, given: Any) -> Any:
        return from_text("path")(given)


class DistillRecipe(Block):
    """On-policy distillation (2306.13649): the student's own answers, each token held against the teacher's odds."""

    stage: Literal["distill"] = "distill"
    name: Name = Field(default="distill", description="name of the run")
    seed: Seed = Field(default=0, description="seed of everything random")
    model: Model = Field(description="the student")
    teacher: Teacher = Field(description="the model it learns from")
    lora: StillLoRA = Field(default=None, description="adapters; null = all weights")
    optim: Annotated[Optim, stage_defaults(lr=1e-5)] = Field(default={}, validate_default=True, description="optimizer")
    budget: RolloutBudget = Field(default=Budget(), validate_default=True, description="updates; 100 unless given")
    data: Data = Field(description="questions; demonstrations where own is below 1")
    dev: Data | None = Field(default=None, description="held-out data of the same kind")
    watch: Watch = Field(default=Watch(), description="evaluation while training")
    save: Save = Field(default=Save(), description="checkpoints")
    sampling: Sampling = Field(default=Sampling(), description="how the student's answers are drawn")
    prompts: Int = Field(default=32, ge=1, description="questions per update")
    own: Float = Field(
        default=1.0, ge=0, le=1, description="share of them that the student answers itself; the others as given"
    )
    beta: Float = Field(
        default=1.0, ge=0, le=1, description="1 = KL(student, teacher), 0 = KL(teacher, student), between: JSD of both"
    )

    @property
    def answers(self) -> int:
        """Answers to a question of one update."""
        return 1
