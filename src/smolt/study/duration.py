"""How long a training or a whole study will take here: what its recipe asks for, over speeds that are measured first.

Answers are watched for a while to see how long they are; a policy that learns to write longer ones takes longer. What
another program or function of the user's decides (a judge, a Python reward) is named and not counted.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from smolt.config import (
    REWARDED,
    DecideRecipe,
    DistillRecipe,
    DPORecipe,
    GRPORecipe,
    KTORecipe,
    OnlineDPORecipe,
    PPORecipe,
    RewardMix,
    RewardPart,
    StudyRecipe,
)
from smolt.data import Question
from smolt.errors import UserError
from smolt.evaluation.exam import CHUNK, KL_QUESTIONS
from smolt.models.conditions import conditions_of
from smolt.models.ground import Ground, open_ground
from smolt.models.groups import Groups, join
from smolt.models.items import READERS, asked_questions
from smolt.models.locating import locate
from smolt.rewards.audit.seen_pairs import hold_out
from smolt.rewards.build import rules_alone
from smolt.study.speed import Decoding, Speeds, of_length
from smolt.training.clock import evaluations
from smolt.training.examination import CENTERED, held_out_pairs
from smolt.training.fit import ENDLESS
from smolt.training.memory.outlook import Foresight, foresee
from smolt.training.memory.shapes import empty_network
from smolt.training.memory.workload import LOOKED_AT
from smolt.training.streams import taken, updates_of

MINUTE, HOUR = 60, 3600
ASKED_FIRST = 64  # questions whose answers are watched
FORETOLD = ("sft", "reward", "dpo", "kto", "decide", "ppo", "grpo", "online_dpo", "distill")
RATES = {"reward": ("learning_scores", "scoring"), "decide": ("learning_decisions", "deciding")}
"""Stage -> the speeds, of `Speeds`, of its training and of a look at its dev data, where these are of their own."""
TIMED = (*FORETOLD, "pretrain", "pairs")
SHOWN = 0.02  # of the whole, a part that is not worth a word


@dataclass
class Duration:
    """Seconds by what they go into, and what is not counted.

    Attributes:
        seconds: by kind of work.
        uncounted: what takes time that nobody can foretell.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    uncounted: list[str] = field(default_factory=list)

    @property
    def total(self) -> float:
        """All of it, in seconds."""
        return sum(self.seconds.values())

    def add(self, kind: str, seconds: float) -> None:
        """More of a kind of work."""
        self.seconds[kind] = self.seconds.get(kind, 0.0) + seconds

    def at_most(self, seconds: float) -> "Duration":
        """The same where a budget ends it: shares stay, the whole is no longer than that."""
        return self.times(min(1.0, seconds / self.total) if self.total else 1.0)

    def times(self, factor: float) -> "Duration":
        """Several of it, or a share."""
        return Duration({kind: value * factor for kind, value in self.seconds.items()}, self.uncounted)

    @property
    def sentence(self) -> str:
        """For a person."""
        if not self.seconds:
            return f"not foretold: {', '.join(self.uncounted)}"
        parts = [f"{kind} {spoken(value)}" for kind, value in self.seconds.items() if value > SHOWN * self.total]
        detail = f" ({', '.join(parts)})" if len(parts) > 1 else ""
        return f"about {spoken(self.total)}{detail}" + "".join(f"; not counted: {text}" for text in self.uncounted)


def spoken(seconds: float) -> str:
    """12 s, 7 min, 2 h 05 min."""
    if seconds < 1.5 * MINUTE:
        return f"{seconds:.0f} s"
    if seconds < 1.5 * HOUR:
        return f"{seconds / MINUTE:.0f} min"
    hours, rest = divmod(round(seconds / MINUTE), 60)
    return f"{hours} h {rest:02d} min"


class Foretelling:
    """Durations of one recipe's parts; each model's speeds are measured once."""

    def __init__(self) -> None:
        self._speeds: dict[tuple[str, str], Speeds] = {}

    def training(self, recipe: Any, seen: Foresight) -> Duration:
        """Of a stage that trains.

        Args:
            recipe: the stage's, its model and data there.
            seen: what is known of it already.
        """
        speeds = self._of(recipe, seen.ground, list(self._rows(recipe, seen)))
        if isinstance(recipe, DistillRecipe):
            found = _taught(recipe, seen, speeds)
        else:
            found = _rollouts(recipe, seen, speeds) if seen.asked is not None else _lessons(recipe, seen, speeds)
        found.add("loading", speeds.loading)
        minutes = recipe.budget.minutes
        return found if minutes is None else found.at_most(minutes * MINUTE)

    def exam(self, study: StudyRecipe, arm: Any) -> Duration:
        """Of one arm's final answers, their rating, and its distance to the baseline.

        Args:
            study: whose exam.
            arm: the recipe whose model answers, with a model that is there.
        """
        ground, settings = open_ground(arm.model), study.study
        assert settings.test is not None  # a study with arms has one
        found, rewards = Duration(), settings.reward or _first_reward(study)
        suites = settings.suites
        raters = [RewardMix(parts=(part,)) for part in suites.raters.values()] if suites else []
        asked = [(settings.test, settings.items, [rewards])]
        asked += [(data, None, raters) for data in (suites.prompts if suites else ())]
        for number, (data, items, mixes) in enumerate(asked):
            questions = asked_questions(data, ground.renderer, ground.window, settings.sampling.max_tokens)
            chosen = questions.questions[:items]
            speeds = self._of(arm, ground, [_written(ground, chosen, settings.sampling.max_tokens)])
            _examine(found, study, ground, chosen, mixes, speeds, arm, final=number == 0)
        found.add("loading", 2 * speeds.loading)
        return found

    def _of(self, recipe: Any, ground: Ground, rows: Sequence[Groups]) -> Speeds:
        lora = getattr(recipe, "lora", None)
        key = (f"{ground.located} {ground.precision}", repr(lora))
        return self._speeds.setdefault(key, Speeds(ground, lora, rows))

    def _rows(self, recipe: Any, seen: Foresight) -> Iterator[Groups]:
        if seen.asked is not None:
            yield _written(seen.ground, seen.asked.questions, recipe.sampling.max_tokens)
            return
        size = len(seen.items)
        yield join([seen.items[place] for place in taken(0, min(size, ASKED_FIRST), size, recipe.seed)])


def _written(ground: Ground, questions: Sequence[Question], longest: int) -> Groups:
    """Some questions with answers of the greatest length."""
    contexts = ground.renderer.contexts([question.context for question in questions[:ASKED_FIRST]])
    return of_length(contexts, 1, longest)


def _lessons(recipe: Any, seen: Foresight, speeds: Speeds) -> Duration:
    """A stage that learns from records."""
    found, items, scores = Duration(), list(seen.items), recipe.stage == "reward"
    held_out = held_out_pairs(recipe, seen.ground, items) if scores else _held_out(recipe, seen)
    if scores and recipe.dev is None:
        items, _ = hold_out(items, recipe.seed)
    total = updates_of(recipe.budget, len(items), recipe.batch)
    if total >= ENDLESS:
        found.add("training", (recipe.budget.minutes or 0.0) * MINUTE)
        return found
    learning, reading = RATES.get(recipe.stage, ("learning", "forward"))
    looked_at = range(min(total, LOOKED_AT))
    sizes = [sum(items[at].tokens for at in taken(n, recipe.batch, len(items), recipe.seed)) for n in looked_at]
    tokens = sum(sizes) / len(sizes)
    found.add("training", total * (tokens / getattr(speeds, learning) + speeds.stepping))
    measured = sum(item.tokens for item in held_out)
    times = evaluations(0, total, recipe.watch.every) if held_out else 0
    if isinstance(recipe, KTORecipe) or (isinstance(recipe, DPORecipe) and not recipe.reference_free):
        seen_once = min(total * recipe.batch, len(items)) * tokens / recipe.batch
        found.add("reference", (seen_once + measured) / speeds.forward)
    if isinstance(recipe, KTORecipe):  # every answer once more, by policy and reference
        found.add("KL", 2 * (total * tokens + times * measured) / speeds.forward)
    times += isinstance(recipe, DecideRecipe) and recipe.calibrate and bool(held_out)  # a temperature, at the end
    found.add("measuring", times * measured / getattr(speeds, reading))
    if scores:
        centred = sum(item.tokens for item in items[:CENTERED])
        found.add("audit", (measured + _probed(held_out, seen.ground.window) + centred) / speeds.scoring)
    return found


def _held_out(recipe: Any, seen: Foresight) -> list[Groups]:
    if recipe.dev is None:
        return []
    return READERS[recipe.stage](recipe.dev, seen.ground.renderer, seen.ground.window).items[: recipe.watch.items]


def _probed(pairs: Sequence[Groups], window: int) -> int:
    """Tokens of an audit's made-up answers: the longest by far says the rejected one three times, where that fits."""
    tokens = 0
    for pair in pairs:
        context, repeated = len(pair.contexts[0]), 3 * int(pair.lengths[1])
        tokens += context + (repeated if context + repeated <= window else 0)
    return tokens


def _rollouts(recipe: PPORecipe | GRPORecipe | OnlineDPORecipe, seen: Foresight, speeds: Speeds) -> Duration:
    """A stage that learns from its own answers."""
    assert seen.asked is not None
    found, ground, questions = Duration(), seen.ground, seen.asked.questions
    drawing = conditions_of(ground.renderer, recipe.sampling.max_tokens).drawing(
        recipe.sampling.temperature, recipe.sampling.batch
    )
    total = recipe.budget.updates or ENDLESS
    if total >= ENDLESS:
        found.add("training", (recipe.budget.minutes or 0.0) * MINUTE)
        return found
    contexts = _contexts(ground, questions)
    answers, context = recipe.prompts * recipe.answers, sum(map(len, contexts)) / len(contexts)
    decoding = speeds.decoding(contexts, drawing, answers)
    tokens = recipe.prompts * context + answers * decoding.length
    found.add("sampling", total * decoding.seconds(recipe.prompts, answers))
    _rate(found, [recipe.reward], total * tokens, speeds)
    epochs, steps = recipe.inner.epochs, recipe.inner.epochs * recipe.inner.minibatches
    if isinstance(recipe, PPORecipe):
        prepared, learned = 2 / speeds.forward + 1 / speeds.scoring, 1 / speeds.learning
        learned += 1 / speeds.learning_scores if recipe.critic.trunk == "own" else 0
    elif isinstance(recipe, OnlineDPORecipe):  # two answers of each question, by policy and reference
        share = 2 / recipe.samples
        prepared, learned = share / speeds.forward, share / speeds.learning
    else:
        passes = (recipe.kl.beta > 0) + (steps > 1)
        prepared, learned = passes / speeds.forward, 1 / speeds.learning
    roles = 2 if isinstance(recipe, PPORecipe) and recipe.critic.trunk == "own" else 1
    found.add("training", total * (tokens * (prepared + epochs * learned) + roles * steps * speeds.stepping))
    if recipe.dev is not None:
        held_out = asked_questions(recipe.dev, ground.renderer, ground.window, recipe.sampling.max_tokens).questions
        asked = min(len(held_out), recipe.watch.items or len(held_out))
        times = evaluations(0, total, recipe.watch.every)
        found.add("measuring", times * decoding.seconds(asked, asked))
        _rate(found, [recipe.reward], times * asked * (context + decoding.length), speeds)
    return found


def _taught(recipe: DistillRecipe, seen: Foresight, speeds: Speeds) -> Duration:
    """A stage that learns a teacher's distributions, on its own answers or on given ones as long."""
    assert seen.asked is not None
    found, sampling, total = Duration(), recipe.sampling, recipe.budget.updates or ENDLESS
    if total >= ENDLESS:
        found.add("training", (recipe.budget.minutes or 0.0) * MINUTE)
        return found
    drawing = conditions_of(seen.ground.renderer, sampling.max_tokens).drawing(sampling.temperature, sampling.batch)
    contexts, own = _contexts(seen.ground, seen.asked.questions), round(recipe.own * recipe.prompts)
    decoding = speeds.decoding(contexts, drawing, recipe.prompts)
    tokens = recipe.prompts * (sum(map(len, contexts)) / len(contexts) + decoding.length)
    found.add("sampling", total * decoding.seconds(own, own) if own else 0.0)
    found.add("teacher", total * tokens * _weight(recipe.teacher.path, seen.ground) / speeds.forward)
    found.add("training", total * (tokens / speeds.learning + speeds.stepping))
    return found


def _contexts(ground: Ground, questions: Sequence[Question]) -> list[list[int]]:
    return ground.renderer.contexts([question.context for question in questions[:ASKED_FIRST]])


def _rate(found: Duration, mixes: Sequence[RewardMix], tokens: float, speeds: Speeds) -> None:
    """What networks take that rate answers of so many tokens; others are named."""
    networks = 0.0
    for part in (part for mix in mixes for part in mix.parts):
        if part.name in ("model", "ensemble"):
            paths = [part.path] if part.name == "model" else list(part.options.get("path", ()))
            networks += sum(_weight(path, speeds.ground) for path in paths)
        elif not rules_alone([part]):
            named = f"the reward {part.name}" + (f" ({part.path})" if part.path else "")
            found.uncounted += [named] if named not in found.uncounted else []
    if networks:
        found.add("rating", networks * tokens / speeds.scoring)


def _weight(path: str | None, ground: Ground) -> float:
    """A reward model's parameters as a multiple of the policy's; 1 for one that a section has yet to make."""
    try:
        if path is None or not Path(path).is_dir():
            return 1.0
        own, policy = (empty_network(located).num_parameters() for located in (locate(path), ground.located))
    except UserError:
        return 1.0  # its own loader says what is wrong with it
    return float(own / policy)


def _first_reward(study: StudyRecipe) -> RewardMix:
    """What the arms are measured by where `study.reward` does not say it."""
    recipes: Iterator[Any] = (section.recipe for section in study.sections)
    found: RewardMix = next(recipe.reward for recipe in recipes if recipe.stage in REWARDED)
    return found


def _examine(
    found: Duration,
    study: StudyRecipe,
    ground: Ground,
    questions: Sequence[Question],
    mixes: Sequence[RewardMix],
    speeds: Speeds,
    arm: Any,
    final: bool,
) -> None:
    """Add one file of answers of one arm."""
    settings = study.study
    longest, temperature = settings.sampling.max_tokens, settings.sampling.temperature
    drawing = conditions_of(ground.renderer, longest).drawing(temperature, settings.sampling.batch)
    contexts = _contexts(ground, questions)
    mean = sum(map(len, contexts)) / len(contexts)
    chooses = arm.stage == "best_of_n"
    samples = arm.n if chooses else settings.samples
    decoding = speeds.decoding(contexts, drawing, len(questions) * samples)
    found.add("answering", _in_chunks(decoding, len(questions), samples))
    tokens = len(questions) * (mean + samples * decoding.length)
    if chooses:
        _rate(found, [RewardMix(parts=(RewardPart(name="model", path=arm.reward_model),))], tokens, speeds)
        tokens = len(questions) * (mean + decoding.length)
    _rate(found, mixes, tokens, speeds)
    if final and not chooses and arm.name != settings.baseline:
        asked = min(KL_QUESTIONS, len(questions))
        found.add("distance", decoding.seconds(asked, asked) + 2 * asked * (mean + decoding.length) / speeds.forward)


def _in_chunks(decoding: Decoding, questions: int, samples: int) -> float:
    whole, rest = divmod(questions, CHUNK)
    parts = [CHUNK] * whole + ([rest] if rest else [])
    return sum(decoding.seconds(part, part * samples) for part in parts)


def grounded(study: StudyRecipe) -> Mapping[str, Any]:
    """Each section's recipe, and `base`'s, with the base model in place of what another section makes of it."""
    base = study.model
    found: dict[str, Any] = {} if base is None else {"base": study.model_copy(update={"name": "base"})}
    for section in study.sections:
        recipe: Any = section.recipe
        model: Any = getattr(recipe, "model", None)
        if base is not None and "{" in getattr(model, "path", ""):
            recipe = recipe.model_copy(update={"model": model.model_copy(update={"path": base.path})})
        found[section.name] = recipe.model_copy(update={"name": section.name})
    return found


def foretell(recipe: Any) -> Iterator[tuple[str, Duration]]:
    """Durations of a recipe's parts that can be foretold, by name; of a study also those of its arms' exams.

    Raises:
        UserError: model or data cannot be read.
    """
    told = Foretelling()
    recipes = grounded(recipe) if isinstance(recipe, StudyRecipe) else {recipe.name: recipe}
    runs = len(recipe.study.seeds) if isinstance(recipe, StudyRecipe) else 1
    known: dict[str, Duration] = {}
    for name, stage in recipes.items():
        like = getattr(getattr(stage, "budget", None), "like", None)
        if like in known:
            known[name] = Duration({"training": known[like].total})
        elif stage.stage in TIMED:
            known[name] = _training(told, stage).times(runs)
        else:
            continue
        yield name, known[name]
    if isinstance(recipe, StudyRecipe) and _there_already(recipe.study.test):
        for name in recipe.arms:
            arm = recipes.get(name)
            if arm is not None and _there_already(arm.model):
                yield f"{name}'s answers", told.exam(recipe, arm).times(runs)


def _training(told: Foretelling, stage: Any) -> Duration:
    if stage.stage not in FORETOLD:
        return Duration(uncounted=["a stage of this kind"])
    seen = foresee(stage) if _there(stage) else None
    if seen is None:
        return Duration(uncounted=["its model or its data are made by another section"])
    return told.training(stage, seen)


def _there(stage: Any) -> bool:
    """Whether a stage's model and data are there before the study runs."""
    return _there_already(getattr(stage, "model", None)) and _there_already(getattr(stage, "data", None))


def _there_already(block: Any) -> bool:
    return "{" not in getattr(block, "path", "{")
