"""What lies beside a model that decides: labels, temperatures and a template, in transformers' files and defaults."""

import string
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import transformers
from transformers import PreTrainedTokenizerBase

from smolt.data.decisions import TYPES
from smolt.errors import UserError
from smolt.models.forward.quiet import read_by_library
from smolt.models.rendering.renderer import Renderer, file_of

if TYPE_CHECKING:
    from transformers.decision import DecisionConfig

SETTINGS, TEMPLATE = "decision.json", "decision_template.jinja"
TRUTH_LABELS = (("Yes", "No"), ("yes", "no"), ("Y", "N"), ("T", "F"))
LETTERS = tuple(string.ascii_uppercase)


def library() -> Any:
    """The module of decisions in transformers, which older releases lack.

    Raises:
        UserError: this one does.
    """
    try:
        from transformers import decision
    except ImportError:
        raise UserError(f"decisions need transformers 5.23 or later; {transformers.__version__} is installed") from None
    return decision


def settings_of(renderer: Renderer) -> "DecisionConfig":
    """What lies beside a model's tokenizer: decision.json and decision_template.jinja; transformers' own without them.

    Raises:
        UserError: they cannot be read.
    """
    name = str(renderer.tokenizer.name_or_path)
    settings, template = file_of(name, SETTINGS), file_of(name, TEMPLATE)
    with read_by_library(str(Path(name) / SETTINGS)):
        found: DecisionConfig = library().DecisionConfig.from_file(settings if settings.is_file() else None)
        return replace(found, chat_template=template.read_text(encoding="utf-8")) if template.is_file() else found


def carry_settings(renderer: Renderer, directory: Path) -> None:
    """Write the settings of a model that has some beside another copy of it, which has its adapter merged."""
    name = str(renderer.tokenizer.name_or_path)
    if file_of(name, SETTINGS).is_file() or file_of(name, TEMPLATE).is_file():
        replace(settings_of(renderer), adapter=None).save_pretrained(directory)


def trainable_settings(renderer: Renderer) -> "DecisionConfig":
    """The same for a model that will be trained: with labels that are single tokens of its own, and a template.

    Temperatures are left out: what is trained is calibrated anew.
    """
    found = replace(settings_of(renderer), temperature={}, adapter=None)
    labels = {kind: found.labels.get(kind) or _single(renderer.tokenizer, kind) for kind in TYPES}
    usual = {"noul": list(TRUTH_LABELS[0]), "choice": list(LETTERS), "score": list(LETTERS)}
    labels = {kind: given for kind, given in labels.items() if given != usual[kind]}
    if found.chat_template is not None or renderer.template is not None:
        return replace(found, labels=labels)
    asked = "{%- set asked -%}" + library().DECISION_PROMPT + "{%- endset -%}{%- set add_generation_prompt = true -%}"
    asked += "{%- set messages = [{'role': 'user', 'content': asked}] -%}" + renderer.jinja
    return replace(found, labels=labels, chat_template=asked)


def _single(tokenizer: PreTrainedTokenizerBase, kind: str) -> list[str]:
    """Labels that are single tokens: the usual ones where they are, else what comes nearest."""
    if kind != "noul":
        found = [letter for letter in LETTERS if _is_single(tokenizer, (letter,))]
        if len(found) > 1:
            return found
    pair = next((pair for pair in TRUTH_LABELS if _is_single(tokenizer, pair)), None)
    if kind != "noul" or pair is None:
        raise UserError(f"labels.{kind}: no letters are single tokens of this model; name labels in {SETTINGS}")
    return list(pair)


def _is_single(tokenizer: PreTrainedTokenizerBase, labels: Sequence[str]) -> bool:
    try:
        return bool(library().label_token_ids(tokenizer, tuple(labels)))
    except ValueError:
        return False
