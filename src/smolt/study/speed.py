"""How fast a model computes on this machine, each of its works measured when it is first asked for.

Nothing is known from a processor's name: the model itself runs on some of a recipe's own rows, for some seconds each.
"""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice

import torch

from smolt.config import LoRA
from smolt.models.ground import Ground
from smolt.models.groups import Groups, cut, from_answers
from smolt.models.rendering.option_scores import option_scores
from smolt.models.roles import Policy, open_policy
from smolt.models.sampling import Drawing, sample
from smolt.training import clock
from smolt.training.objectives import brier

LOG = logging.getLogger(__name__)
TOKENS = 512  # of one forward that is measured
PARTS = 3  # forwards of each kind: the first warms up
STEPS = 6  # decoding steps that are timed
DISTINCT = 8  # questions that are asked, each as often as fills the slots
SHORT = 4  # of these one in so many is asked in a second timing
WATCHED = 15.0  # seconds, at most, that answers are watched growing
ANSWERS = 16  # that are watched


@dataclass(frozen=True)
class Decoding:
    """How answers come into being.

    Attributes:
        slots: answers side by side, at most.
        step: seconds of a decoding step, however many answers are in it.
        answer: seconds more for each of them.
        context: seconds until a question has been read.
        length: tokens of an answer in the mean.
        longest: most tokens of an answer.
    """

    slots: int
    step: float
    answer: float
    context: float
    length: float
    longest: int

    def seconds(self, contexts: int, answers: int) -> float:
        """Seconds of so many answers to so many questions; the last ones end with slots standing empty."""
        together = min(answers, self.slots)
        slowest = min(self.longest, self.length * (1 + math.log(together))) if together else 0.0
        steps = max(0, answers - self.slots) * self.length / self.slots + slowest
        return contexts * self.context + steps * self.step + answers * self.length * self.answer


class Speeds:
    """A model's speeds, in packed tokens a second, and how it answers.

    Args:
        ground: of the model.
        lora: adapters that are trained; None trains all weights.
        rows: what it will read, at least one.
    """

    def __init__(self, ground: Ground, lora: LoRA | None, rows: Sequence[Groups]) -> None:
        self.ground = ground
        self.lora = lora
        self.rows = rows
        self._decodings: dict[str, Decoding] = {}
        self.loading = 0.0
        """Seconds until the model stood in memory."""

    def now(self) -> float:
        """Seconds, once a card has done what it was given."""
        if self.ground.precision.device.type == "cuda":
            torch.cuda.synchronize()
        return clock.now()

    @cached_property
    def policy(self) -> Policy:
        """The model, as a training opens it."""
        began = self.now()
        found = open_policy(self.ground.located, self.ground.precision, self.lora, 0)
        self.loading = self.now() - began
        return found

    @cached_property
    def forward(self) -> float:
        """Log-probabilities of answers."""
        return self._rate("reading", self._logprobs, learning=False)

    @cached_property
    def learning(self) -> float:
        """The same with a backward pass."""
        return self._rate("learning", self._logprobs, learning=True)

    @cached_property
    def scoring(self) -> float:
        """A reward model's scores, or a critic's values: no logits."""
        return self._rate("scoring", self._states, learning=False)

    @cached_property
    def learning_scores(self) -> float:
        """The same with a backward pass."""
        return self._rate("learning to score", self._states, learning=True)

    @cached_property
    def deciding(self) -> float:
        """Probabilities of decisions' options: logits at one token of each question, of its labels alone."""
        return self._rate("deciding", self._options, learning=False)

    @cached_property
    def learning_decisions(self) -> float:
        """The same with a backward pass."""
        return self._rate("learning to decide", self._options, learning=True)

    @cached_property
    def stepping(self) -> float:
        """Seconds of an optimizer step over what is trained."""
        parameters = list(self.policy.parameters().values())
        optimizer = torch.optim.AdamW(parameters, lr=0.0, fused=parameters[0].device.type in ("cpu", "cuda"))
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        began = self.now()
        optimizer.step()
        taken = self.now() - began
        optimizer.zero_grad(set_to_none=True)
        return taken

    def decoding(self, contexts: Sequence[Sequence[int]], drawing: Drawing, answers: int) -> Decoding:
        """Answer some questions: how long a step takes, and how long the answers are.

        Args:
            contexts: tokens of the questions.
            drawing: how answers are drawn.
            answers: to all of them, in the work that is foretold.
        """
        slots, asked = min(drawing.batch, answers), [list(context) for context in contexts[:DISTINCT]]
        key = repr((drawing, slots, asked))
        if key not in self._decodings:
            _ = self.policy  # a step of its own, where it is not loaded yet
            LOG.info("measuring how fast answers are written")
            self._decodings[key] = self._decoding(asked[:slots], replace(drawing, batch=slots))
        return self._decodings[key]

    def _decoding(self, asked: list[list[int]], drawing: Drawing) -> Decoding:
        copies = drawing.batch // len(asked)
        fewer = asked[: max(1, len(asked) // SHORT)]
        self._step(fewer, 1, drawing)  # warms up
        full, context = self._step(asked, copies, drawing)
        step, each = full, 0.0
        if len(fewer) < len(asked):
            few, _ = self._step(fewer, copies, drawing)
            each = max(0.0, (full - few) / (len(asked) - len(fewer)) / copies)
            step = full - len(asked) * copies * each
        length = self._length(asked, drawing, step + each * ANSWERS)
        return Decoding(drawing.batch, step, each, context, length, drawing.max_tokens)

    def _step(self, contexts: list[list[int]], copies: int, drawing: Drawing) -> tuple[float, float]:
        """Seconds of a step of so many answers to each, and seconds until each question had been read."""
        took = []
        for tokens in (1, 1 + STEPS):
            endless = replace(drawing, max_tokens=tokens, stop_ids=frozenset(), batch=len(contexts) * copies)
            began = self.now()
            sample(self.policy, contexts, copies, endless, (0, tokens))
            took.append(self.now() - began)
        return max(1e-9, took[1] - took[0]) / STEPS, took[0] / len(contexts)

    def _length(self, contexts: list[list[int]], drawing: Drawing, step: float) -> float:
        """The mean length of answers that are watched for a while, those that go on ending as the others did."""
        seen = max(1, min(drawing.max_tokens, int(WATCHED / step)))
        copies = max(1, ANSWERS // len(contexts))
        groups = sample(self.policy, contexts, copies, replace(drawing, max_tokens=seen), (0, 0))
        return expected_length(groups.lengths.tolist(), groups.stopped.tolist(), drawing.max_tokens)

    def _logprobs(self, part: Groups) -> torch.Tensor:
        return self.policy(part)[0].sum()

    def _states(self, part: Groups) -> torch.Tensor:
        self.policy.trunk.use(self.policy.adapter)
        return self.policy.trunk.states(part, with_last=True)[1].float().sum()

    def _options(self, part: Groups) -> torch.Tensor:
        scores = option_scores(self.policy, part)
        return brier(scores, part.columns["expected"][:, :, 0].to(scores.device)).sum()

    def _rate(self, what: str, work: Callable[[Groups], torch.Tensor], learning: bool) -> float:
        """Tokens a second over some forwards of different lengths, after one that warms up."""
        _ = self.policy
        LOG.info("measuring the speed of %s", what)
        tokens = seconds = 0.0
        for number, part in enumerate(self._parts):
            began = self.now()
            with torch.set_grad_enabled(learning):
                made = work(part)
                if learning:
                    made.backward()
            if number or len(self._parts) == 1:
                seconds += self.now() - began
                tokens += part.tokens
        for parameter in self.policy.parameters().values():
            parameter.grad = None
        return tokens / max(seconds, 1e-9)

    @cached_property
    def _parts(self) -> list[Groups]:
        """Some micro-batches of the rows."""
        found: list[Groups] = []
        for rows in self.rows:
            found += islice(cut(rows, TOKENS), PARTS - len(found))
            if len(found) == PARTS:
                break
        return found


def expected_length(lengths: Sequence[int], stopped: Sequence[bool], longest: int) -> float:
    """The mean length of answers of at most `longest` tokens, some of which were watched for a shorter time only.

    An answer that had not ended goes on with the chance of ending at each token that the answers showed so far, ended
    answers over tokens: (1 - (1 - h)^left) / h tokens more, all that are left where none ended.
    """
    chance = sum(stopped) / sum(lengths)
    total = 0.0
    for length, ended in zip(lengths, stopped, strict=True):
        left = 0 if ended else longest - length
        total += length + (left if not chance else (1 - (1 - chance) ** left) / chance)
    return total / len(lengths)


def of_length(contexts: Sequence[Sequence[int]], answers: int, length: int) -> Groups:
    """Questions with answers of a length; which tokens does not matter for time."""
    return from_answers(contexts, [[[0] * length] * answers] * len(contexts))
