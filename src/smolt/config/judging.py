"""Who judges answers: a local model, a reward model, an endpoint or a rule."""

import re
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from smolt.config.blocks import LENGTHS, REWARDS, Block, Bool, Float, Int, PathText, RewardMix, from_text
from smolt.config.complaints import suggestion


def as_address(url: str) -> str:
    """A server's base address without a slash at its end.

    Raises:
        ValueError: it is none, or holds a user or a query, which could be a secret.
    """
    if not re.fullmatch(r"https?://[^\s/?#@]+(/[^\s?#@]*)?", url):
        raise ValueError("must be http://HOST or https://HOST with an optional path, without a user or a query")
    return url.rstrip("/")


class Endpoint(Block):
    """An OpenAI-compatible API. Its key is read from the environment; it is never stored or shown."""

    url: str = Field(min_length=1, description="base address, such as http://localhost:8000/v1")
    model: str = Field(min_length=1, description="name of the model there")
    key: str | None = Field(
        default=None, min_length=1, description="environment variable with the key; null = SMOLT_JUDGE_KEY if it is set"
    )
    timeout: Float = Field(default=60.0, gt=0, description="seconds for one reply")
    attempts: Int = Field(default=5, ge=1, description="tries for one reply, with growing pauses")
    rate: Float | None = Field(default=None, gt=0, description="at most so many requests a minute")
    parallel: Int = Field(default=4, ge=1, le=64, description="requests under way at once")
    price: tuple[Float, Float] | None = Field(
        default=None, description="cost of a million prompt tokens and of a million reply tokens"
    )

    @field_validator("url")
    @classmethod
    def _is_http(cls, url: str) -> str:
        return as_address(url).removesuffix("/chat/completions")


PINNED = "*"
"""In the place of a model's name: whatever a server serves."""


class Judging(Block):
    """Who says which of two answers is better, and how it is asked. `judge: DIR` is a model on this machine."""

    kind: Literal["local", "model", "endpoint", "rule"] | None = Field(
        default=None, description="null = by what is given: a language model, a reward model, an endpoint or a rule"
    )
    path: PathText | None = Field(default=None, description="the judge on this machine: a directory, run or hub name")
    endpoint: Endpoint | None = Field(default=None, description="the judge behind an address")
    rule: RewardMix | None = Field(default=None, description="longer, shorter, or a reward: the higher score wins")
    decision: PathText | Endpoint | None = Field(
        default=None, description="or who is asked decisions: a model here, or the address of a server of /v1/systemone"
    )
    rubric: PathText = Field(default="helpful", description="name of a shipped rubric, or a .yaml or .txt file")
    rationale: Int = Field(default=0, ge=0, description="tokens of reasoning before the choice; 0 = none")
    tau: Float = Field(
        default=0.0, ge=0, description="a tie unless the margin is wider than this (nats; scores for a rule)"
    )
    inconsistent: Literal["keep", "drop"] = Field(
        default="keep", description="pairs decided otherwise when the answers change places: their weight is low"
    )
    gate: Bool = Field(
        default=True,
        description="no labels of a judge whose verdicts may be a coin's, no rewards of one that grades garbage high",
    )
    matched: Float | None = Field(
        default=None, ge=0, lt=1, description="judge only pairs whose lengths differ by at most this share"
    )
    probes: Int = Field(default=50, ge=0, description="pairs on which the judge is tried for the audit; 0 = none")

    @model_validator(mode="before")
    @classmethod
    def _path_alone(cls, given: Any) -> Any:
        return from_text("path")(given)

    @field_validator("rule", mode="before")
    @classmethod
    def _is_known(cls, given: Any) -> Any:
        if isinstance(given, str) and given not in (*LENGTHS, *REWARDS):
            raise ValueError(f"{given[:60]!a} is unknown" + suggestion(given, (*LENGTHS, *REWARDS)))
        return given

    @field_validator("decision", mode="before")
    @classmethod
    def _address_alone(cls, given: Any) -> Any:
        is_address = isinstance(given, str) and given.startswith(("http://", "https://"))
        return {"url": given, "model": PINNED} if is_address else given

    @property
    def remote(self) -> Endpoint | None:
        """The server that is asked, where it is one."""
        return self.decision if isinstance(self.decision, Endpoint) else self.endpoint

    @model_validator(mode="after")
    def _exactly_one(self) -> "Judging":
        given = {"path": self.path, "endpoint": self.endpoint, "rule": self.rule, "decision": self.decision}
        named = [name for name, value in given.items() if value is not None]
        if len(named) != 1:
            raise ValueError(f"give exactly one of path, endpoint, rule and decision, not {', '.join(named) or 'none'}")
        wanted = {"endpoint": "endpoint", "rule": "rule"}.get(self.kind or "", "path")
        if self.kind is not None and named == ["decision"]:
            raise ValueError("kind is for path, endpoint and rule; remove it beside decision")
        if self.kind is not None and named != [wanted]:
            raise ValueError(f"kind {self.kind} needs {wanted}, not {named[0]}")
        if self.rationale and named[0] in ("rule", "decision"):
            raise ValueError(f"a {named[0]} gives no rationale; remove rationale")
        return self
