"""What Ollama is told about a GGUF file: prompt, stop tokens, sampling. Its templates are Go's, not Jinja's.

The prompt is found by rendering dialogues with marks in them. A chat template that is not a sentence for each role, one
after the other, has no counterpart there, and none is written.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from smolt.config import ChatSampling
from smolt.data import Context, Role, Turn
from smolt.errors import UserError
from smolt.models.gguf.tensors import context_length
from smolt.models.gguf.vocabulary import GgufVocabulary
from smolt.models.rendering import Renderer

MOST_CONTEXT = 8192
"""Positions that Ollama is asked to hold keys and values for, of models that have more."""

ALONE = {"plain": "", "question": "\n"}
"""Styles that write one turn of the user otherwise than several: what stands after it."""

ROLES: tuple[Role, ...] = get_args(Role)
SYSTEM, ASKED, TOLD, AGAIN = Turn("system", "Zs1"), Turn("user", "Zu2"), Turn("assistant", "Za3"), Turn("user", "Zu4")
TRIALS: tuple[Context, ...] = (
    (ASKED,),
    (SYSTEM, ASKED),
    (ASKED, TOLD, AGAIN),
    (SYSTEM, ASKED, TOLD, AGAIN, TOLD, ASKED),
)
"""The dialogues that must come out as the renderer has them; their contents are what no template writes itself."""


@dataclass(frozen=True)
class Framing:
    """A prompt as what stands before and after the content of each role's turn.

    Attributes:
        before: role -> text.
        after: role -> text.
        opening: what the answer begins after.
        system: what the system says where nobody says otherwise.
    """

    before: dict[Role, str]
    after: dict[Role, str]
    opening: str
    system: str | None = None

    def text(self, turns: Sequence[Turn]) -> str:
        """A dialogue as Ollama will write it."""
        if self.system is not None and turns[0].role != "system":
            turns = (Turn("system", self.system), *turns)
        written = (self.before[turn.role] + turn.content + self.after[turn.role] for turn in turns)
        return "".join(written) + self.opening


def modelfile(file: str, renderer: Renderer, vocabulary: GgufVocabulary, config: Any) -> str:
    """The text of a Modelfile.

    Args:
        file: name of the GGUF file beside it.
        renderer: how prompts are written.
        vocabulary: of the file.
        config: of the network.
    """
    sampling = ChatSampling()
    prompt = prompt_of(renderer, vocabulary)
    lines = [f"FROM ./{file}"]
    if renderer.style in ALONE:
        lines.append("# For one question at a time, which is what the model was trained on.")
        lines.append(f'TEMPLATE """{{{{ .Prompt }}}}{ALONE[renderer.style]}"""')
    elif prompt is None:
        lines.append(
            "# No TEMPLATE: the chat template is none of fixed text around each turn. `ollama show --modelfile`"
        )
        lines.append("# tells which one Ollama takes for it.")
    else:
        lines.append(f'TEMPLATE """{_go(prompt)}"""')
        if prompt.system is not None:
            lines.append(f'SYSTEM """{prompt.system}"""')
    tokens = renderer.tokenizer.convert_ids_to_tokens(sorted(renderer.stop_ids))
    parameters = [
        *(("stop", f'"{token}"') for token in tokens),
        ("num_ctx", min(context_length(config), MOST_CONTEXT)),
        ("temperature", sampling.temperature),
        ("top_k", sampling.top_k),
        ("top_p", sampling.top_p),
        ("repeat_penalty", sampling.repetition),
    ]
    lines += [f"PARAMETER {name} {value}" for name, value in parameters]
    return "\n".join([*lines, ""])


def prompt_of(renderer: Renderer, vocabulary: GgufVocabulary) -> Framing | None:
    """The prompt, without the bos token where the file has it added; None where it is not of fixed text."""
    bos = renderer.tokenizer.bos_token if vocabulary.begins else None

    def written(turns: Sequence[Turn]) -> str:
        return renderer.text(tuple(turns)).removeprefix(bos or "")

    try:
        pieces = _cut(written((ASKED, TOLD, AGAIN)), (ASKED, TOLD, AGAIN))
    except UserError:
        return None
    if pieces is None:
        return None
    first, to_assistant, to_user, opening = pieces
    line = _shared(to_assistant, to_user).rpartition("\n")
    for start in (to_user.removeprefix("".join(line[:2])), _shared(first[::-1], to_user[::-1])[::-1]):
        ends = to_user.removesuffix(start)
        for end in (ends, _shared(to_assistant, opening)):
            found = _with_turns(pieces, start, end, written)
            if found is not None and _is_written(found, written):
                return found
    return None


def _is_written(prompt: Framing, written: Callable[[Sequence[Turn]], str]) -> bool:
    """Whether the prompt writes what the renderer does, and can stand in a Modelfile."""
    parts = [*prompt.before.values(), *prompt.after.values(), prompt.opening, prompt.system or ""]
    if any(sign in part for part in parts for sign in ("{{", "}}", '"""')):
        return False
    for turns in TRIALS:
        try:
            wanted = written(turns)
        except UserError:
            continue  # roles that the template refuses
        if not {turn.role for turn in turns} <= prompt.before.keys() or prompt.text(turns) != wanted:
            return False
    return True


def _with_turns(
    pieces: Sequence[str], start: str, end: str, written: Callable[[Sequence[Turn]], str]
) -> Framing | None:
    """The prompt where a user's turn has this start and end.

    Args:
        pieces: before a user's turn, from it to the assistant's, from there to the user's, and what opens the answer.
        start: what stands before a user's content.
        end: what stands after it.
        written: what the renderer makes of turns.
    """
    first, to_assistant, to_user, opening = pieces
    if not (opening.startswith(end) and to_assistant.startswith(end) and first.endswith(start)):
        return None
    before: dict[Role, str] = {"user": start, "assistant": to_assistant[len(end) :]}
    after: dict[Role, str] = {"user": end, "assistant": to_user.removesuffix(start)}
    found, lead = Framing(before, after, opening[len(end) :]), first.removesuffix(start)
    try:
        told = written((SYSTEM, ASKED))
    except UserError:
        return found if not lead else None
    return _with_system(found, told, lead)


def _with_system(prompt: Framing, told: str, lead: str) -> Framing | None:
    """The prompt with the system's turn, and with what the template says for it where `lead` stands unasked."""
    cut = _cut(told, (SYSTEM, ASKED))
    if cut is None or not cut[1].endswith(prompt.before["user"]):
        return None
    start, end = cut[0], cut[1].removesuffix(prompt.before["user"])
    system = None
    if lead:
        if not (lead.startswith(start) and lead.endswith(end) and len(lead) > len(start) + len(end)):
            return None
        system = lead[len(start) : len(lead) - len(end)]
    return Framing({"system": start, **prompt.before}, {"system": end, **prompt.after}, prompt.opening, system)


def _cut(text: str, turns: Sequence[Turn]) -> list[str] | None:
    """The text around the contents of turns; None where one does not stand there, in its order."""
    pieces = []
    for turn in turns:
        piece, found, text = text.partition(turn.content)
        if not found:
            return None
        pieces.append(piece)
    return [*pieces, text]


def _shared(one: str, other: str) -> str:
    """The beginning that both texts have."""
    at = next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    return one[:at]


def _go(prompt: Framing) -> str:
    """The prompt in the language of Go's templates."""
    arms: list[str] = []
    for role in (role for role in ROLES if role in prompt.before):
        condition = f'{{{{ {"else if" if arms else "if"} eq .Role "{role}" }}}}'
        arms.append(f"{condition}{prompt.before[role]}{{{{ .Content }}}}{prompt.after[role]}")
    return f"{{{{ range .Messages }}}}{''.join(arms)}{{{{ end }}}}{{{{ end }}}}{prompt.opening}"
