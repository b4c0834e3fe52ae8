"""A server that answers decisions: `/v1/systemone` of `transformers serve`, and of others that speak the same."""

import json
from typing import Any

from smolt.config import Endpoint
from smolt.config.judging import PINNED
from smolt.data import Decision
from smolt.rewards.llm_judge.asking import Asker, Reply
from smolt.rewards.llm_judge.connection import Connection
from smolt.rewards.llm_judge.decision_head import Decided, from_answers
from smolt.rewards.llm_judge.endpoint import Pace, api_key, asking_remotely
from smolt.rewards.llm_judge.replies import Malformed, usage

PATH = "/v1/systemone"
MOST_QUESTIONS = 64  # of one request


class DecisionServer:
    """Decisions to requests."""

    def __init__(self, settings: Endpoint) -> None:
        self.url = settings.url.removesuffix("/systemone").removesuffix("/v1") + PATH
        self.connection = Connection(self.url, api_key(settings.key), settings.timeout, settings.attempts, "decisions")
        self._model = {} if settings.model == PINNED else {"model": settings.model}
        self._pace = Pace(settings.rate, self.connection.pause)

    def decide(self, decision: Decision) -> tuple[Decided, tuple[int, int]]:
        """Log-probabilities of each question's options, and the tokens of prompt and reply.

        Raises:
            Lost, Refused, UserError: as of `Connection.post`.
        """
        self._pace.wait()
        body = {**self._model, **json.loads(json.dumps(decision.request))}
        document = self.connection.post(body, lambda found: _read(decision, found))
        prompt, reply = usage(document)
        tokens = document.get("usage") or {}
        return _read(decision, document), (prompt or _count(tokens.get("input_tokens")), reply)

    def asked(self, decision: Decision) -> Reply:
        """The reply to a decision of one question."""
        found, tokens = self.decide(decision)
        return Reply(found[0], tokens=tokens)


def open_server(settings: Endpoint) -> Asker:
    """A server as judge; nothing is sent yet.

    Raises:
        UserError: the environment variable that is named for the key is not set.
    """
    server = DecisionServer(settings)
    ask = asking_remotely(server.asked, server.connection, settings.parallel)
    name = server.url if settings.model == PINNED else f"{settings.model} at {server.url}"
    return Asker(name, {"decision": server.url, "model": settings.model}, ask, (settings.model,), decides=True)


def _read(decision: Decision, document: Any) -> Decided:
    """What a reply says.

    Raises:
        Malformed: it is no reply to this decision.
    """
    try:
        return from_answers(decision, document["answers"])
    except (KeyError, TypeError, ValueError, AttributeError):
        raise Malformed("the reply holds no answer to each question") from None


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0
