"""How a dialogue becomes text: the tokenizer's chat template, or one of three layouts for models without one.

A template is trusted only after it was tried: the rendering of a context must be a prefix of the rendering of the same
context with its answer, otherwise a model would be trained on something else than it is asked at sampling time.
"""

import contextlib
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import FrameType
from typing import Any, Literal, get_args

import jinja2
from transformers import PreTrainedTokenizerBase

from smolt.data import Context, Turn
from smolt.data.nouns import as_messages
from smolt.errors import UserError

Style = Literal["chat", "thinking", "dialogue", "plain", "question"]
STYLES: tuple[str, ...] = get_args(Style)

MARK = "Zq7"
"""The answer a template is tried with: letters and a digit that no template writes itself."""

THOUGHT = "<think>\nHm.\n</think>\n\n"
"""What stands before an answer when thinking is on, in the form of Qwen3's template and its kin."""

TRIALS: tuple[Context, ...] = (
    (Turn("user", "Hi."),),
    (Turn("user", "Hi."), Turn("assistant", "Hello!"), Turn("user", "One\ntwo?")),
    (Turn("system", "Be brief."), Turn("user", "Hi.")),
)
"""The contexts a template is tried with; it may refuse the later two (no system role, say), never the first."""

TEMPLATE_FAULTS = (jinja2.TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError)
"""What a template's own code can raise."""

DATE = {"%d": "26", "%-d": "26", "%b": "Jul", "%B": "July", "%m": "07", "%Y": "2024", "%y": "24", "%A": "Friday"}
"""A template that writes today's date would render every day differently; it gets this one, whatever the day."""

JINJA = "<template>"  # the file that the code of a compiled template names
TRIAL_SECONDS = 1.0
TRIAL_MEMORY = 1 << 30
"""What a template may take for one short turn while it is tried."""

STRIPS: dict[str, Callable[[str], str]] = {"none": str, "both": str.strip, "left": str.lstrip, "right": str.rstrip}


@dataclass(frozen=True)
class ChatLayout:
    r"""Where an answer stands.

    Attributes:
        before: white space between the context and the answer's text, written by the policy (" " after "[/INST]").
        after: text between the answer and its stop token, written by the policy ("" nearly always).
        strip: which white space of an answer the template removes, a key of STRIPS.
        stop: the stop token the template writes after an answer; None when it writes none.
        given: the answer's own beginning that the context already holds ("<think>\n" in templates that always think).
        anchor: the end of a context, before which an answer is encoded (see Renderer.answer).
    """

    before: str
    after: str
    strip: str
    stop: str | None
    anchor: str
    given: str = ""


PLAIN_LAYOUTS: dict[str, ChatLayout] = {
    "plain": ChatLayout("", "", "none", None, "\n"),
    "question": ChatLayout("", "", "none", None, "\n"),
    "dialogue": ChatLayout(" ", "", "none", None, "\n\nAssistant:"),
}


def plain_text(turns: Context, style: str) -> str:
    r"""The text of a context (not empty) in a layout without a chat template.

    plain     the one user turn, word for word: the answer continues it
    question  the one user turn and a newline; other contexts: as `dialogue`, and a newline
    dialogue  "\n\nHuman: ...\n\nAssistant:", the form of the HH data; a system turn stands bare

    Raises:
        UserError: style "plain" with anything but one user turn.
    """
    alone = len(turns) == 1 and turns[0].role == "user"
    if style == "plain":
        if not alone:
            raise UserError('style "plain" continues one text, but the context has roles; use style "dialogue"')
        return turns[0].content
    if style == "question" and alone:
        return turns[0].content + "\n"
    heads = {"user": "\n\nHuman: ", "assistant": "\n\nAssistant: ", "system": ""}
    dialogue = "".join(heads[turn.role] + turn.content for turn in turns) + "\n\nAssistant:"
    return dialogue + "\n" if style == "question" else dialogue


_PLAIN_BEGIN = (
    "{{ bos_token }}{% set answered = not add_generation_prompt and messages[-1]['role'] == 'assistant' %}"
    "{% set asked = messages[:-1] if answered else messages %}"
    "{% set alone = asked | length == 1 and asked[0]['role'] == 'user' %}"
)
_PLAIN_DIALOGUE = (
    "{% for turn in asked %}"
    "{% if turn['role'] == 'user' %}{{ '\\n\\nHuman: ' + turn['content'] }}"
    "{% elif turn['role'] == 'assistant' %}{{ '\\n\\nAssistant: ' + turn['content'] }}"
    "{% else %}{{ turn['content'] }}{% endif %}{% endfor %}"
)
_PLAIN_END = "{% if answered %}{{ messages[-1]['content'] + eos_token }}{% endif %}"

PLAIN_TEMPLATES: dict[str, str] = {
    "plain": _PLAIN_BEGIN
    + "{% if not alone %}{{ raise_exception('it continues one text of the user') }}{% endif %}"
    + "{{ asked[0]['content'] }}"
    + _PLAIN_END,
    "question": _PLAIN_BEGIN
    + "{% if alone %}{{ asked[0]['content'] + '\\n' }}{% else %}"
    + _PLAIN_DIALOGUE
    + "{{ '\\n\\nAssistant:\\n' }}{% endif %}"
    + _PLAIN_END,
    "dialogue": _PLAIN_BEGIN
    + _PLAIN_DIALOGUE
    + "{{ '\\n\\nAssistant:' }}{% if answered %}{{ ' ' }}{% endif %}"
    + _PLAIN_END,
}
"""The layouts of `plain_text` as chat templates, for programs that know no other form of a dialogue."""


_FIXED_DATE = (
    "{% macro strftime_now(format) %}{{ format"
    + "".join(f" | replace({sign!r}, {value!r})" for sign, value in DATE.items())
    + " }}{% endmacro %}\n"
)
"""Template code that stands in for transformers' clock (which takes no function from outside)."""


def template_text(
    tokenizer: PreTrainedTokenizerBase, template: str, turns: Context, opens: bool, thinking: bool = False
) -> str:
    """What the chat template writes for these turns; with the start of an assistant turn when `opens`.

    Templates that look at them get `enable_thinking` (off, but in style "thinking") and a fixed date.

    Raises:
        UserError: the template refuses these turns (its reason is given).
    """
    try:
        text = tokenizer.apply_chat_template(
            as_messages(turns),
            chat_template=_FIXED_DATE + template if "strftime_now" in template else template,
            tokenize=False,
            add_generation_prompt=opens,
            enable_thinking=thinking,
        )
    except TEMPLATE_FAULTS as fault:
        roles = ", ".join(turn.role for turn in turns)
        raise UserError(f"the chat template refuses the turns [{roles}]: {fault}") from fault
    return str(text)


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """A template that is tried may take TRIAL_SECONDS and TRIAL_MEMORY: one that loops or grows is refused.

    Raises:
        UserError: it takes more.
    """
    ends, most = time.monotonic() + TRIAL_SECONDS, _resident() + TRIAL_MEMORY

    def look(frame: FrameType, event: str, argument: object) -> Any:
        if frame.f_code.co_filename != JINJA:
            return None  # the library's own lines
        if time.monotonic() > ends:
            raise TimeoutError
        if _resident() > most:
            raise MemoryError
        return look

    before = sys.gettrace()
    sys.settrace(look)
    try:
        yield
    except (TimeoutError, MemoryError, RecursionError) as fault:
        what = "does not end" if isinstance(fault, TimeoutError) else "grows without end"
        raise UserError(f"the chat template {what}: it was given {TRIAL_SECONDS:g} s for one short turn") from None
    finally:
        sys.settrace(before)


def _resident() -> int:
    """Bytes of memory that this process holds; the most it ever held where the system tells no more."""
    if os.path.exists("/proc/self/statm"):
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def chat_layout(
    tokenizer: PreTrainedTokenizerBase, template: str, stops: Mapping[str, int], thinking: bool = False
) -> ChatLayout:
    """Try a chat template and find where its answers stand.

    Args:
        tokenizer: whose special tokens the template names.
        template: the Jinja source.
        stops: the added tokens, text to id; the first of them after an answer is its stop token.
        thinking: answers begin with a thought, as THOUGHT does.

    Raises:
        UserError: the template refuses a single user turn, or is not prefix-preserving, or treats answers differently
            from context to context (the message shows where); it knows no thoughts though `thinking`.
    """
    if thinking and "think" not in template:
        raise UserError('the chat template knows no thoughts; use style "chat"')
    found: list[ChatLayout] = []
    for turns in TRIALS:
        try:
            with bounded():
                opened = template_text(tokenizer, template, turns, opens=True, thinking=thinking)
        except UserError:
            if turns == TRIALS[0]:
                raise
            continue
        found.append(_one_layout(tokenizer, template, turns, opened, stops, thinking))
    for other in found[1:]:
        if replace(other, anchor=found[0].anchor) != found[0]:
            raise UserError(f"the chat template ends answers differently from context to context: {found[0]}, {other}")
    return found[0]


def _one_layout(
    tokenizer: PreTrainedTokenizerBase,
    template: str,
    turns: Context,
    opened: str,
    stops: Mapping[str, int],
    thinking: bool,
) -> ChatLayout:
    thought = THOUGHT if thinking else ""
    begins = THOUGHT.split("Hm.")[0]
    given = begins if thinking and opened.endswith(begins) else ""

    def rest(answer: str) -> str:
        asked = (*turns, Turn("assistant", thought + answer))
        closed = template_text(tokenizer, template, asked, opens=False, thinking=thinking)
        if not closed.startswith(opened):
            at = next((i for i, (a, b) in enumerate(zip(opened, closed, strict=False)) if a != b), len(closed))
            raise UserError(
                "the chat template is not prefix-preserving: before an answer it writes "
                f"{opened[at : at + 40]!r}, but with the answer {closed[at : at + 40]!r}; use another template, "
                'or style "question" or "dialogue"'
            )
        return closed[len(opened) :]

    before, mark, tail = rest(MARK).partition(thought.removeprefix(given) + MARK)
    if not mark or before.strip():
        raise UserError(
            f"the chat template writes {before[:60]!r} before an answer that its generation prompt leaves out; "
            'use another template, or style "question" or "dialogue"'
        )
    ends = [(tail.index(text), -len(text), text) for text in stops if text in tail]
    stop = min(ends)[2] if ends else None
    after = tail[: min(ends)[0]] if ends else ""
    padded = f" \n {MARK} \n "
    written = rest(padded)
    for strip, function in STRIPS.items():
        kept = function(thought + padded).removeprefix(given)
        if written.startswith(before + kept + after + (stop or "")):
            anchor = opened[max((opened.rfind(text) for text in stops if text in opened), default=0) :]
            return ChatLayout(before, after, strip, stop, anchor, given)
    raise UserError(f"the chat template changes an answer's text: {padded!r} became {written[:60]!r}")
