"""A rollout's answers from a server: the adapter pushed when its answers would grow too old, and how old they are.

Each push has a name of its own, `smolt-RANDOM-UPDATE`, and a request names it: a reply is of exactly these weights,
and no server can keep anything it read under other ones. A server that was started anew does not know the name: it is
pushed again and asked again. Where all weights are trained nothing can be pushed, and the server answers with those it
was started with, as long as `server.max_age` permits.
"""

import logging
import secrets
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from smolt import processes, randomness
from smolt.config import AnswerServer
from smolt.errors import UserError
from smolt.models.groups import Groups
from smolt.models.rendering import Renderer
from smolt.models.roles import Policy
from smolt.models.sampling import Drawing
from smolt.models.saving import save_policy
from smolt.runs import storage
from smolt.runs.chunks import counted
from smolt.training.fit import Metrics
from smolt.training.online.answer_server import ServedModel, Wanted, Written

LOG = logging.getLogger(__name__)
PUSHED = "pushed"
"""Folder of a run with the adapter that the server reads."""


TRIED = 8  # tokens of an answer that shows what a server can do


def tried(settings: AnswerServer, context: Sequence[int], stop_ids: frozenset[int], temperature: float) -> str:
    """What a server is, in words, after a short answer of the model it serves; nothing is pushed.

    Raises:
        UserError: it is away or cannot do what is needed.
    """
    server, began = ServedModel(settings, 2**31), time.perf_counter()
    server.open()
    (found,) = server.answers([Wanted(server.name, context, 1, TRIED, temperature, stop_ids, 0)], lambda come: None)
    if found is None:
        raise UserError(f"server: {settings.url}: lists the model {server.name} and does not know it (status 404)")
    return (
        f"{server.kind.name} with the model {server.name}: {len(found[0].tokens)} token ids with their "
        f"log-probabilities came in {time.perf_counter() - began:.2g} s"
    )


class ServedAnswers:
    """Who writes the answers where a recipe names a server.

    Args:
        settings: the recipe's block.
        policy: whose answers they are.
        renderer: goes with the adapter.
        drawing: how tokens are drawn.
        out: the run's directory; None takes a temporary one for the adapter.
    """

    def __init__(
        self,
        settings: AnswerServer,
        policy: Policy,
        renderer: Renderer,
        drawing: Drawing,
        out: Path | None,
    ) -> None:
        self.settings = settings
        self.policy = policy
        self.renderer = renderer
        self.drawing = drawing
        self.server = ServedModel(settings, policy.trunk.head.shape[0])
        self._out = out
        self._session = secrets.token_hex(4)
        self._name: str | None = None
        self._since = 0  # the update whose weights the server answers with
        self._seconds = 0.0
        self.age = 0

    @property
    def described(self) -> str:
        """The server, for messages."""
        return f"{self.server.kind.name} at {self.settings.url}"

    def open(self) -> None:
        """Look at the server before the first update.

        Raises:
            UserError: it is away or cannot do what is needed.
        """
        processes.by_first(self.server.open)

    def draw(self, contexts: Sequence[Sequence[int]], n: int, counter: tuple[int, ...], ids: Sequence[int]) -> Groups:
        """Answers to each context, n of them, as `smolt.models.sampling.sample` gives them.

        Their draws are functions of (counter, question, answer) as far as the server's seeds make them so.

        Raises:
            UserError: the server is away, or gives what is no answer of this policy.
        """
        self.policy.trunk.require_row(max(map(len, contexts)) + self.drawing.max_tokens)
        found, self.age, self._seconds = processes.by_first(lambda: self._drawn(contexts, n, counter, ids))
        answers = [answer for group in found for answer in group]
        width = max(len(answer.tokens) for answer in answers)
        sampled = torch.zeros(len(answers), width)
        for row, answer in enumerate(answers):
            sampled[row, : len(answer.tokens)] = torch.tensor(answer.logprobs)
        return Groups(
            contexts=tuple(torch.tensor(context, dtype=torch.int64) for context in contexts),
            answers=tuple(torch.tensor(answer.tokens, dtype=torch.int64) for answer in answers),
            owners=tuple(owner for owner in range(len(contexts)) for _ in range(n)),
            stopped=torch.tensor([answer.stopped for answer in answers]),
            columns={"sampled": sampled},
        )

    def metrics(self, answers: int) -> Metrics:
        """Of an update of so many answers: how many are stale, by how many updates, and what pushing took."""
        seconds, self._seconds = self._seconds, 0.0
        return {"stale": answers if self.age else 0, "rollout_age": self.age, "push_seconds": seconds}

    def _drawn(
        self, contexts: Sequence[Sequence[int]], n: int, counter: tuple[int, ...], ids: Sequence[int]
    ) -> tuple[list[list[Written]], int, float]:
        update, seconds = counter[1], self._seconds
        due = self._name is None or update - self._since > self.settings.max_age
        if self.policy.adapter is not None and due:
            began = time.perf_counter()
            self._push(update)
            seconds += time.perf_counter() - began
        asked = [self._asked(context, n, (*counter, number)) for context, number in zip(contexts, ids, strict=True)]
        found = self.server.answers(asked, lambda come: counted(come, n * len(asked)))
        missing = [place for place, answers in enumerate(found) if answers is None]
        if missing and self._name is not None:  # it was started anew, or let the adapter go
            LOG.warning("server: %s does not know %s any more; pushed again", self.settings.url, self._name)
            self.server.load(self._name, str(self._folder(self._since)))
            again = self.server.answers([asked[place] for place in missing], lambda come: None)
            for place, answers in zip(missing, again, strict=True):
                found[place] = answers
        written = [answers for answers in found if answers is not None]
        if len(written) < len(found):
            raise UserError(f"server: {self.settings.url}: does not know the model {asked[0].model} (status 404)")
        return written, update - self._since, seconds

    def _asked(self, context: Sequence[int], n: int, counter: tuple[int, ...]) -> Wanted:
        drawing = self.drawing
        model = self._name or self.server.name
        seed = randomness.key(*counter) % 2**31
        return Wanted(model, context, n, drawing.max_tokens, drawing.temperature, drawing.stop_ids, seed)

    def _push(self, update: int) -> None:
        """Write the adapter as it is now where the server reads it, and have it loaded; the one before it goes.

        Raises:
            UserError: the server does not take it.
        """
        folder, before = self._folder(update), self._name
        with storage.whole_directory(folder, keep=False) as staging:
            save_policy(self.policy, self.renderer, staging)
        name = f"smolt-{self._session}-{update}"
        self.server.load(name, str(folder))
        self._name, self._since = name, update
        if before is not None:
            self.server.unload(before)
        for other in folder.parent.iterdir():  # those of a training that was cut off too
            if other != folder:
                storage.remove_directory(other)

    def close(self) -> None:
        """Have the server forget the adapter, and remove it here."""
        if self._name is not None:
            self.server.unload(self._name)
            shutil.rmtree(self._folder(self._since).parent, ignore_errors=True)
            self._name = None

    def _folder(self, update: int) -> Path:
        """Where the adapter of an update lies."""
        if self._out is None:
            self._out = Path(tempfile.mkdtemp(prefix="smolt-pushed-"))
        return self._out.absolute() / PUSHED / str(update)
