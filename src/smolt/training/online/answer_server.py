"""Answers of a server that speaks OpenAI's /v1/completions, as token ids with the log-probabilities they were drawn by.

Prompts go as token ids too, so that no tokenizer stands in between. What is beyond OpenAI's interface (ids in the
reply, limits that must be off, adapters that are loaded) differs from server to server, so a server is known by the
owner it names in /v1/models: one that is not known here is refused. `smolt serve` is run by the tests, vLLM is spoken
to as its documentation says (0.10.2 and later).
"""

import json
import math
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any

from smolt.config import AnswerServer
from smolt.errors import UserError
from smolt.rewards.llm_judge.connection import Absent, Connection, Lost, Refused
from smolt.rewards.llm_judge.endpoint import api_key
from smolt.rewards.llm_judge.replies import Malformed

KEY = "SMOLT_API_KEY"
WHO = "server"
ENDS = ("stop", "length")


@dataclass(frozen=True)
class Kind:
    """A kind of server.

    Attributes:
        name: for messages.
        fields: of a request, beyond what all understand; they switch off what would change the distribution.
        adapters: how it is started to take adapters.
    """

    name: str
    fields: dict[str, Any]
    adapters: str


KINDS = {
    "smolt": Kind("smolt serve", {"top_k": 0, "logprobs": 0, "return_token_ids": True}, "--adapters 2"),
    "vllm": Kind(
        "vLLM",
        {
            **{"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0},
            **{"logprobs": 1, "return_token_ids": True, "ignore_eos": True},  # it ends at stop_token_ids alone
        },
        "--enable-lora --max-lora-rank RANK and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True",
    ),
}
"""By `owned_by` of the models they list."""

LACKING = {
    "llamacpp": "llama.cpp's server leaves out the log-probability of each token that ends within a character, and "
    "takes no adapters while it runs",
}
"""Servers of which it is known what they lack, by the same."""


@dataclass(frozen=True)
class Wanted:
    """Answers to one context that are wanted: how many, how long, how drawn, and what decides the draws."""

    model: str
    context: Sequence[int]
    n: int
    max_tokens: int
    temperature: float
    stop_ids: frozenset[int]
    seed: int


@dataclass(frozen=True)
class Written:
    """One answer: its tokens, their log-probabilities, and whether the last one is a stop token."""

    tokens: list[int]
    logprobs: list[float]
    stopped: bool


class ServedModel:
    """A model behind an address.

    Args:
        settings: the recipe's block.
        rows: ids that the policy knows; 0 to rows - 1.

    Raises:
        UserError: the environment variable that is named for the key is not set.
    """

    def __init__(self, settings: AnswerServer, rows: int) -> None:
        self.settings = settings
        self.rows = rows
        self._models = self._connection("models", "list of models")
        self._completions = self._connection("completions", "completions for this model")
        self._load = self._connection("load_lora_adapter", "loading of adapters", bytes.decode)
        self._unload = self._connection("unload_lora_adapter", "unloading of adapters", bytes.decode)
        self.kind, self.name = KINDS["smolt"], settings.model or ""

    def _connection(self, path: str, offers: str, read: Callable[[bytes], Any] = json.loads) -> Connection:
        settings = self.settings
        key = api_key(settings.key, WHO, KEY)
        address = f"{settings.url}/{path}"
        return Connection(address, key, settings.timeout, settings.attempts, offers, WHO, WHO, KEY, read)

    def open(self) -> None:
        """Ask who it is, and which model it has.

        Raises:
            UserError: it is away, of no kind that can do what is needed, has no such model, or several.
        """
        listed: list[dict[str, Any]] = self._said(self._models, None, _read_models)["data"]
        names = {str(model["id"]): model for model in listed if not model.get("parent")}
        place = f"server: {self.settings.url}"
        if not self.settings.model and len(names) != 1:
            raise UserError(f"{place}: serves {', '.join(names) or 'no model'}; say which one with server.model")
        name = self.settings.model or next(iter(names))
        if name not in names:
            raise UserError(f"{place}: serves no model {name!r}; there is {', '.join(names) or 'none'}")
        owner = names[name].get("owned_by")
        if owner not in KINDS:
            known = " and ".join(kind.name for kind in KINDS.values())
            unknown = (
                f"its models are owned by {owner!r:.60}, and it is not known that such a server tells token ids with "
                "their log-probabilities, draws without truncation and takes adapters"
            )
            raise UserError(f"{place}: {LACKING.get(str(owner), unknown)}; {known} do all of it")
        self.kind, self.name = KINDS[owner], name

    def answers(self, asked: Sequence[Wanted], heard: Callable[[int], None]) -> list[list[Written] | None]:
        """The answers to several contexts, `parallel` of them under way at once.

        Args:
            asked: what is wanted.
            heard: called with the number of answers that have come.

        Returns:
            For each its answers; None where the server does not know the model by that name any more.

        Raises:
            UserError: the server is away or gives what is no answer of this model.
        """
        found: list[list[Written] | None] = [None] * len(asked)
        self._completions.leaving.clear()
        come = 0
        with ThreadPoolExecutor(self.settings.parallel) as pool:
            waiting: dict[Future[list[Written] | None], int] = {
                pool.submit(self._written, one): place for place, one in enumerate(asked)
            }
            try:
                for future in as_completed(waiting):
                    found[waiting[future]] = future.result()
                    come += asked[waiting[future]].n
                    heard(come)
            finally:
                self._completions.leaving.set()  # an error: nobody waits for the others
                pool.shutdown(cancel_futures=True)
        return found

    def _written(self, asked: Wanted) -> list[Written] | None:
        own = {"stop_token_ids": sorted(asked.stop_ids)} if self.kind is KINDS["vllm"] else {}
        body = {
            **{"model": asked.model, "prompt": list(asked.context), "max_tokens": asked.max_tokens, "stream": False},
            **{"temperature": asked.temperature, "top_p": 1.0, "n": asked.n, "seed": asked.seed},
            **{**self.kind.fields, **own},
        }
        try:
            document = self._said(self._completions, body, lambda reply: _read_choices(reply, asked))
        except Absent:
            return None
        return [self._answer(choice, asked) for choice in _read_choices(document, asked)]

    def _said(self, connection: Connection, body: dict[str, Any] | None, check: Callable[[Any], object]) -> Any:
        """A document of the server.

        Raises:
            Absent: as of `Connection.post`.
            UserError: there is none.
        """
        try:
            return connection.post(body, check)
        except Lost as error:
            again = "; when it is there again, the same command continues"
            raise UserError(f"server: {connection.url}: {error}{again}") from None
        except Refused as error:
            raise UserError(f"server: {connection.url}: {error}") from None

    def _answer(self, choice: dict[str, Any], asked: Wanted) -> Written:
        """One choice, checked: ids that the policy knows, a log-probability for each, an end that is one here too.

        Raises:
            UserError: names what is missing or wrong.
        """
        place = f"server: {self.settings.url}"
        told = choice.get("logprobs")
        tokens: list[Any] = choice.get("token_ids") or []
        logprobs: list[Any] = (told.get("token_logprobs") if isinstance(told, dict) else None) or []
        if not tokens or len(tokens) != len(logprobs):
            raise UserError(
                f"{place}: gives {len(tokens)} token ids and {len(logprobs)} log-probabilities of an answer; learning "
                f"needs both for each token ({self.kind.name}: is it the latest version?)"
            )
        wrong = next((token for token in tokens if not (type(token) is int and 0 <= token < self.rows)), None)
        if wrong is not None:
            raise UserError(
                f"{place}: gives the token id {wrong!r:.40}, and the policy's go from 0 to {self.rows - 1}: is "
                f"{asked.model} the recipe's model?"
            )
        if not all(type(value) in (int, float) and math.isfinite(value) and value <= 1e-4 for value in logprobs):
            raise UserError(f"{place}: gives log-probabilities that are none")
        ends = [at for at, token in enumerate(tokens) if token in asked.stop_ids]
        if ends:  # whatever follows a stop token is no part of the answer
            tokens, logprobs = tokens[: ends[0] + 1], logprobs[: ends[0] + 1]
        if not ends and choice["finish_reason"] == "length" and len(tokens) < asked.max_tokens:
            raise UserError(
                f"{place}: cut an answer at {len(tokens)} tokens after a prompt of {len(asked.context)}, and "
                f"sampling.max_tokens is {asked.max_tokens}: start it with a longer context"
            )
        if len(tokens) > asked.max_tokens:
            raise UserError(f"{place}: gives {len(tokens)} tokens where {asked.max_tokens} are the most")
        if not ends and choice["finish_reason"] == "stop":
            raise UserError(
                f"{place}: ended an answer at the token {tokens[-1]}, and the policy's answers end at "
                f"{sorted(asked.stop_ids)} alone: is {asked.model} the recipe's model, served without stop texts?"
            )
        return Written(tokens, [min(0.0, value) for value in logprobs], bool(ends))

    def load(self, name: str, path: str) -> None:
        """Have the server take an adapter under a name of its own.

        Raises:
            UserError: it does not; the message says how it is started to.
        """
        how = f"start {self.kind.name} with {self.kind.adapters}"
        try:
            self._said(self._load, {"lora_name": name, "lora_path": path}, _done)
        except Absent as error:
            raise UserError(f"{error}; {how}") from None
        except UserError as error:
            raise UserError(f"{error} (it must read {path}; {how})") from None

    def unload(self, name: str) -> None:
        """Have it forget an adapter; one that it does not know is forgotten already."""
        try:
            self._unload.post({"lora_name": name}, _done)
        except (Absent, Refused):
            return
        except Lost:
            return  # the next request says that the server is away


def _read_models(document: Any) -> None:
    """Raises Malformed for what is no list of models."""
    listed = document.get("data") if isinstance(document, dict) else None
    if not isinstance(listed, list) or not all(isinstance(model, dict) and "id" in model for model in listed):
        raise Malformed("the reply is no list of models")


def _read_choices(document: Any, asked: Wanted) -> list[dict[str, Any]]:
    """The choices of a reply, in order.

    Raises:
        Malformed: they are fewer or more than were asked for, of another model, or were given up.
    """
    choices = document.get("choices") if isinstance(document, dict) else None
    if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
        raise Malformed("the reply has no choices")
    if len(choices) != asked.n:
        raise Malformed(f"the reply has {len(choices)} answers where {asked.n} were asked for")
    if document.get("model") != asked.model:
        raise Malformed(f"the reply is of the model {document.get('model')!r:.60}, and {asked.model} was asked")
    given_up = [choice.get("finish_reason") for choice in choices if choice.get("finish_reason") not in ENDS]
    if given_up:
        raise Malformed(f"an answer was given up ({given_up[0]!s:.60})")
    return sorted(choices, key=lambda choice: int(choice.get("index") or 0))


def _done(document: Any) -> None:
    """A line of text, whatever it says: the status said that it is done."""
