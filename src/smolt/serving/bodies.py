"""The bodies of requests, checked: what is not understood is refused with the field's name, nothing is ignored aloud.

Fields that only name, bill or route a request (user, metadata, service_tier ...) are taken and have no effect.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from smolt.data import Turn

Text = Annotated[str, Field(max_length=1_000_000)]
StopText = Annotated[str, Field(min_length=1, max_length=1000)]
Tokens = list[Annotated[int, Field(ge=0)]]
MOST_LISTED = 20
"""Likeliest tokens of a chat's answer that are told, as at most in OpenAI's interface."""

ONLY: dict[str, tuple[Any, ...]] = {
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "response_format": ({"type": "text"},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "reasoning_effort": (),
    "verbosity": (),
    "web_search_options": (),
    "store": (False,),
    "suffix": ("",),
    "echo": (False,),
    "best_of": (1,),
}
"""Field -> values that leave it without effect, null aside; any other one asks for what smolt does not do."""

WITHOUT_EFFECT = (
    *("user", "metadata", "service_tier", "parallel_tool_calls", "safety_identifier", "prompt_cache_key"),
    "prompt_cache_retention",
)


COLDEST = 0.001
"""The lowest temperature that is not 0: below it logits leave the range of numbers."""


class Refusal(Exception):
    """A request that is not answered, as OpenAI's error object says it.

    Attributes:
        status: of the response.
        message: for a person.
        param: the field that is wrong.
        code: for a program.
        kind: OpenAI's "type".
        headers: of the response.
    """

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        kind: str = "invalid_request_error",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code, self.kind = status, message, param, code, kind
        self.headers = dict(headers or {})

    @property
    def document(self) -> dict[str, Any]:
        """The error object."""
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class StreamOptions(_Strict):
    """What a stream holds beside the answer."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class Body(_Strict):
    """What both interfaces take."""

    model: Text
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = Field(default=None, ge=1, le=128)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    temperature: float | None = Field(default=None, ge=0, le=1000)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=0)
    repetition_penalty: float | None = Field(default=None, ge=1, le=100)
    max_tokens: int | None = Field(default=None, ge=1)
    stop: StopText | Annotated[list[StopText], Field(max_length=16)] | None = None

    @property
    def stop_texts(self) -> tuple[str, ...]:
        """The texts that end an answer."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())


class TextPart(_Strict):
    """A part of a message's content."""

    type: Literal["text"]
    text: Text


class Message(BaseModel):
    """A message of the dialogue; fields of assistant messages that servers send (refusal, ...) are let through."""

    model_config = ConfigDict(strict=True, extra="ignore")
    role: Literal["system", "developer", "user", "assistant"]
    content: Text | list[TextPart]

    @property
    def turn(self) -> Turn:
        """The message as a turn; the developer's is the system's."""
        content = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return Turn("system" if self.role == "developer" else self.role, content)


class ChatBody(Body):
    """POST /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=10_000)]
    max_completion_tokens: int | None = Field(default=None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=MOST_LISTED)

    @property
    def longest(self) -> int | None:
        """Most tokens of an answer; None where the request does not say."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def listed(self) -> int | None:
        """How many likeliest tokens are told beside each; None = not even its own log-probability."""
        return (self.top_logprobs or 0) if self.logprobs else None


class CompletionBody(Body):
    """POST /v1/completions."""

    prompt: Text | Tokens | list[Text] | list[Tokens]
    logprobs: int | None = Field(default=None, ge=0, le=5)
    return_token_ids: bool | None = None

    @property
    def longest(self) -> int | None:
        """Most tokens of an answer; None where the request does not say."""
        return self.max_tokens

    @property
    def listed(self) -> int | None:
        """How many likeliest tokens are told beside each; None = not even its own log-probability."""
        return self.logprobs

    @property
    def prompts(self) -> list[str | list[int]]:
        """Each prompt, as text or tokens."""
        prompt: Any = self.prompt
        several = isinstance(prompt, list) and (not prompt or not isinstance(prompt[0], int))
        return list(prompt) if several else [prompt]


class AdapterBody(_Strict):
    """POST /v1/load_lora_adapter and /v1/unload_lora_adapter, as vLLM has them; the latter without a path."""

    lora_name: Annotated[str, Field(min_length=1, max_length=200)]
    lora_path: Annotated[str, Field(min_length=1, max_length=4000)] | None = None
    load_inplace: bool | None = None


B = TypeVar("B", ChatBody, CompletionBody, AdapterBody)


def read_body(given: dict[str, Any], kind: type[B]) -> B:
    """A request's JSON object, checked.

    Raises:
        Refusal: 400, with the first field that is wrong.
    """
    for name, values in ONLY.items():
        value = given.get(name)
        if value is not None and not any(_same(value, one) for one in values):
            raise Refusal(400, f"{name}: is not supported by smolt serve; leave it out", name, "unsupported_parameter")
    try:
        body = kind.model_validate({key: value for key, value in given.items() if key not in (*ONLY, *WITHOUT_EFFECT)})
    except ValidationError as fault:
        raise _refusal(fault) from None
    if isinstance(body, AdapterBody):
        return body
    if isinstance(body, ChatBody) and body.top_logprobs and not body.logprobs:
        raise Refusal(400, "top_logprobs: needs logprobs: true", "top_logprobs")
    if body.stream_options is not None and not body.stream:
        raise Refusal(400, "stream_options: needs stream: true", "stream_options")
    if body.temperature and body.temperature < COLDEST:
        raise Refusal(400, f"temperature: must be 0 (greedy) or at least {COLDEST}", "temperature")
    return body


def _same(value: Any, one: Any) -> bool:
    """Whether two JSON values are one: 0 is 0.0, and is not false."""
    return isinstance(value, bool) is isinstance(one, bool) and bool(value == one)


def _refusal(fault: ValidationError) -> Refusal:
    """The first fault, at its field: messages[0].content."""
    faults = fault.errors(include_url=False, include_context=False, include_input=False)
    same = [one for one in faults if one["loc"][0] == faults[0]["loc"][0]]
    # Where a field may be of several types, the fault in one of the right type says more than those of the others.
    first = next((one for one in same if not one["type"].endswith("_type")), same[0])
    place = ""
    for part in first["loc"]:
        if isinstance(part, int):
            place += f"[{part}]"
        elif not place:
            place = part
        elif part in ("role", "content", "type", "text", "include_usage", "include_obfuscation"):
            place += f".{part}"
    if first["type"] == "extra_forbidden":
        return Refusal(400, f"{place}: is no field that smolt serve knows", place, "unknown_parameter")
    return Refusal(400, f"{place}: {first['msg'][0].lower()}{first['msg'][1:]}", place)
