"""The one way from records to token ids and back, for training, evaluation, judge and chat."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils.hub import cached_file

from smolt.data import Context, Turn
from smolt.errors import UserError
from smolt.models.forward.quiet import read_by_library
from smolt.models.rendering.control_tokens import PROBE, ControlEncoder, control_tokens
from smolt.models.rendering.layouts import (
    PLAIN_LAYOUTS,
    PLAIN_TEMPLATES,
    STRIPS,
    STYLES,
    THOUGHT,
    TRIALS,
    chat_layout,
    plain_text,
    template_text,
)
from smolt.runs import jsontext

RECORD = "rendering.json"
"""File beside a saved tokenizer: the style and the stop tokens, which no tokenizer file holds."""

VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "tekken.json")
"""Files of which a directory with a tokenizer has at least one."""


class Renderer:
    """Records to token ids.

    The boundary: `context(turns) + answer(text)` is what a model is trained on, and `context(turns)` is what it is
    sampled from. An answer is encoded on its own, always the same way: as what follows the end of a context (the start
    of the assistant's turn; a newline in the styles "plain" and "question"; "Assistant:" in "dialogue"). With a chat
    template the two together equal the template applied to the whole dialogue, up to the end-of-turn token, except
    where the tokenizer would join the answer's own leading white space with the line break before it: sampling cannot
    go back over that boundary, so training does not either.

    Attributes:
        tokenizer: the tokenizer; a template given here replaces its own.
        template: the chat template; None in the other styles.
        style: "chat" | "thinking" | "dialogue" | "plain" | "question" (see layouts.plain_text); "chat" when there is a
            template, else "question", unless told otherwise. "thinking" is "chat" with a thought before each answer.
        stop_id: the stop token that answers are trained to end with: what the template writes after an answer, else
            the tokenizer's eos.
        stop_ids: every token that ends an answer: stop_id, eos, and those the model's generation_config names.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        template: str | None = None,
        *,
        style: str | None = None,
        stop_ids: Iterable[int] = (),
    ) -> None:
        if template is not None:
            tokenizer.chat_template = template
        if style is None:
            style = "chat" if tokenizer.chat_template else "question"
        if style not in STYLES:
            raise UserError(f"style {style!r} is unknown; choose one of {', '.join(STYLES)}")
        self.tokenizer = tokenizer
        self.style = style
        self._thinks = style == "thinking"
        self.template = _own_template(tokenizer, style) if style in ("chat", "thinking") else None
        self._controls = control_tokens(tokenizer)
        if self.template is None:
            self._layout = PLAIN_LAYOUTS[style]
        else:
            known = tokenizer.added_tokens_decoder.items()
            added = {str(token): index for index, token in known if str(token).strip()} | self._controls
            self._layout = chat_layout(tokenizer, self.template, added, self._thinks)
            if self._layout.stop is not None:  # a template may end turns with an added token that is not marked special
                self._controls[self._layout.stop] = added[self._layout.stop]
        self._encoder = ControlEncoder(tokenizer, self._controls)
        self.stop_id = self._find_stop()
        self._stop = next(text for text, index in self._controls.items() if index == self.stop_id)
        own = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
        self.stop_ids = frozenset([self.stop_id, *own, *stop_ids])
        self._dropped = frozenset(self._controls.values()) | self.stop_ids
        self._anchor_ids = self._encoder.encode(self._layout.anchor)
        self._anchor_text = self._plain_decode(self._anchor_ids)
        if self.template is not None:
            self._check_template(self.template)

    def context(self, turns: Context) -> list[int]:
        """Token ids of a context, at least one: what the first answer token is predicted from.

        No token of control comes from a turn's content, and the beginning-of-sequence token stands once. An empty
        context is that token alone (a model without one: its eos, which separates documents).

        Raises:
            UserError: the chat template or the style refuses these turns.
        """
        return self.contexts([turns])[0]

    def contexts(self, dialogues: Sequence[Context]) -> list[list[int]]:
        """`context` of many dialogues, in a third of the time."""
        bos = self.tokenizer.bos_token_id
        texts = [self._context_text(turns) for turns in dialogues]
        start = [] if bos is None or self.template is not None else [bos]
        encoded = self._encoder.encode_all(texts)
        empty = [bos if bos is not None else self.stop_id]
        found = zip(dialogues, encoded, strict=True)
        return [([*start, *ids] if start else ids or [self.stop_id]) if turns else empty for turns, ids in found]

    def _context_text(self, turns: Context) -> str:
        shielded = tuple(Turn(turn.role, self._encoder.shield(turn.content)) for turn in turns)
        if not shielded:
            return ""
        if self.template is not None:
            return template_text(self.tokenizer, self.template, shielded, opens=True, thinking=self._thinks)
        return plain_text(shielded, self.style)

    def text(self, turns: Context) -> str:
        """The text whose tokens are `context`, its beginning-of-sequence token included.

        Raises:
            UserError: the chat template or the style refuses these turns.
        """
        bos = self.tokenizer.bos_token if self.template is None else None
        return (bos or "") + self._encoder.unshield(self._context_text(turns))

    @property
    def jinja(self) -> str:
        """The chat template, or one that writes what the style does without."""
        return PLAIN_TEMPLATES[self.style] if self.template is None else self.template

    def answer(self, text: str, stop: bool = True) -> list[int]:
        """Token ids of an answer, with the stop token unless `stop` is False (see the class for the boundary).

        Raises:
            UserError: the tokenizer cannot start an answer with this text, or the chat template writes another.
        """
        layout = self._layout
        text = STRIPS[layout.strip](text)
        if self.template is not None and (self._thinks or any(sign in text for sign in "<[")):
            self._check_written(self.template, text)
        body = layout.before + self._encoder.shield(text.removeprefix(layout.given))
        if stop:
            body += layout.after + self._stop
        whole = self._encoder.encode(layout.anchor + body)
        length = len(self._anchor_ids)
        if whole[:length] == self._anchor_ids:
            return whole[length:]
        return self._apart(body, whole)

    def _check_written(self, template: str, text: str) -> None:
        """A template may take markup in an answer (a thought in <think>) for its own and write something else."""
        layout, dialogue = self._layout, (*TRIALS[0], Turn("assistant", text))
        opened = template_text(self.tokenizer, template, TRIALS[0], opens=True, thinking=self._thinks)
        closed = template_text(self.tokenizer, template, dialogue, opens=False, thinking=self._thinks)
        if not closed.startswith(opened.removesuffix(layout.given) + layout.before + text + layout.after):
            cure = (
                "begin each answer with its thought, <think>\\n...\\n</think>\\n\\n"
                if self._thinks
                else 'remove thoughts and other markup from the answers, or use style "thinking" or another template'
            )
            raise UserError(f"the chat template rewrites the answer {text[:40]!r}, and writes {closed[-80:]!r}; {cure}")

    def _apart(self, body: str, whole: list[int]) -> list[int]:
        """The ids of an answer whose first characters the tokenizer would join with what stands before it."""
        ids = self._encoder.encode(self._barrier + body)[1:]
        wanted = self._plain_decode(whole)
        # Some SentencePiece tokenizers add a space after a control token: the piece of its own that the answer has not.
        for candidate in (ids, ids[1:]):
            if self._plain_decode([*self._anchor_ids, *candidate]) == wanted:
                return candidate
        text = self._encoder.unshield(body)
        raise UserError(f"the tokenizer cannot start an answer with {text[:20]!r}; remove its leading white space")

    def decode(self, ids: Sequence[int]) -> str:
        """The text of answer tokens: what stands before the first stop token, without control tokens."""
        kept: list[int] = []
        stopped = False
        for token in ids:
            stopped = token in self.stop_ids
            if stopped:
                break
            if token not in self._dropped:
                kept.append(int(token))
        text = self._plain_decode([*self._anchor_ids, *kept]).removeprefix(self._anchor_text)
        text = self._layout.given + text.removeprefix(self._layout.before)
        return text.removesuffix(self._layout.after) if stopped else text

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of all that decides the ids: style, template, stop tokens, vocabulary, a probe's encoding."""
        vocabulary = sorted(self.tokenizer.get_vocab().items(), key=lambda item: (item[1], item[0]))
        parts = [self.style, self.template, sorted(self.stop_ids), self.stop_id, vocabulary]
        parts += [sorted(self._controls.items()), self.tokenizer.bos_token_id, self._encoder.encode(PROBE)]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def save(self, directory: str | Path) -> None:
        """Write the tokenizer, its chat template and the style into a directory; `load_renderer` gives an equal one."""
        self.tokenizer.save_pretrained(str(directory))
        record = {"style": self.style, "stop_ids": sorted(self.stop_ids), "fingerprint": self.fingerprint}
        jsontext.write(Path(directory) / RECORD, record)

    @cached_property
    def _barrier(self) -> str:
        """A control token that leaves the white space around it alone."""
        for index, token in self.tokenizer.added_tokens_decoder.items():
            if str(token) in self._controls and not (token.lstrip or token.rstrip or index == self.stop_id):
                return str(token)
        return self._stop

    def _plain_decode(self, ids: Sequence[int]) -> str:
        text = self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return str(text)

    def _find_stop(self) -> int:
        if self._layout.stop is not None:
            return self._controls[self._layout.stop]
        if self.tokenizer.eos_token_id is None:
            raise UserError(f"{self.tokenizer.name_or_path}: the tokenizer has no eos token, so no answer could end")
        return int(self.tokenizer.eos_token_id)

    def _check_template(self, template: str) -> None:
        """Context ids + answer ids must be the ids of the whole dialogue, up to the stop token."""
        for text in ("Fine, 42.", "Yes.\n\n1) a\n2) b"):
            answer = THOUGHT + text if self._thinks else text
            dialogue = (*TRIALS[0], Turn("assistant", answer))
            written = template_text(self.tokenizer, template, dialogue, opens=False, thinking=self._thinks)
            whole = self._encoder.encode(written)
            ids = self.context(TRIALS[0])
            try:
                ids += self.answer(answer, stop=self._layout.stop is not None)
            except UserError:
                ids = []
            if not ids or whole[: len(ids)] != ids:
                raise UserError(
                    "the chat template and the tokenizer do not fit: context and answer apart give other tokens than "
                    'the whole dialogue; use another template, or style "question" or "dialogue"'
                )


def _own_template(tokenizer: PreTrainedTokenizerBase, style: str) -> str:
    if not tokenizer.chat_template:
        raise UserError(f'{tokenizer.name_or_path}: style "{style}" needs a chat template, and the tokenizer has none')
    return str(tokenizer.get_chat_template())


def load_renderer(path: str | Path, style: str | None = None, template: str | None = None) -> Renderer:
    """The renderer of a model directory (or of a hub name, through transformers' cache).

    Of the model's generation_config.json only `eos_token_id` is honoured: temperatures and penalties of the hub must
    not leak into training (trap 5).

    Args:
        path: a directory with a tokenizer, or a hub name.
        style: see Renderer; None takes the style saved with the tokenizer, else the tokenizer's default.
        template: a Jinja chat template instead of the tokenizer's own.

    Raises:
        UserError: no tokenizer there, or its chat template cannot be trusted (the reason is given).
    """
    name = str(path)
    folder = Path(path)
    if folder.is_dir():
        if not any((folder / file).is_file() for file in VOCABULARIES):
            raise UserError(f"{name}: no tokenizer in this directory (a tokenizer.json is needed)")
        for file in ("tokenizer.json", "tokenizer_config.json"):
            jsontext.read_object(folder / file, or_empty=True)
    elif folder.is_absolute() or name.startswith(".") or name.count("/") > 1:
        raise UserError(f"{name}: no such directory")
    with read_by_library(f"{name}: its tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    record = jsontext.read_object(file_of(name, RECORD), or_empty=True)
    config = jsontext.read_object(file_of(name, "generation_config.json"), or_empty=True)
    eos = _token_ids(config.get("eos_token_id"), f"{name}/generation_config.json: eos_token_id")
    stops = _token_ids(record.get("stop_ids"), f"{name}/{RECORD}: stop_ids")
    saved = record.get("style")
    if saved is not None and saved not in STYLES:
        raise UserError(f"{name}/{RECORD}: style: {saved!r} is unknown; choose one of {', '.join(STYLES)}")
    try:
        return Renderer(tokenizer, template, style=style or (None if template else saved), stop_ids=[*eos, *stops])
    except UserError as fault:
        raise UserError(f"{name}: {fault}") from fault


def file_of(name: str, file: str) -> Path:
    """The local path of a model's file; one that does not exist is named all the same."""
    local = Path(name) / file
    if Path(name).is_dir():
        return local
    found = cached_file(
        name, file, _raise_exceptions_for_missing_entries=False, _raise_exceptions_for_connection_errors=False
    )
    return local if found is None else Path(found)


def _token_ids(value: object, place: str) -> list[int]:
    """One id, a list of ids, or none."""
    given: list[object] = [] if value is None else list(value) if isinstance(value, list) else [value]
    ids = [index for index in given if isinstance(index, int) and not isinstance(index, bool) and index >= 0]
    if len(ids) != len(given):
        raise UserError(f"{place}: must be a token id or a list of token ids, not {value!r}")
    return ids
