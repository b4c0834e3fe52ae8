"""A tokenizer and a small Llama from plain text: the model that a study from scratch starts with."""

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from smolt import randomness
from smolt.config import PretrainRecipe, Shape
from smolt.data import load
from smolt.errors import UserError
from smolt.models.forward.precision import Precision, choose_precision
from smolt.models.forward.quiet import hush
from smolt.models.forward.trunk import Trunk
from smolt.models.groups import Groups, from_answers
from smolt.models.rendering import Renderer, train_tokenizer
from smolt.models.roles import Policy
from smolt.models.saving import save_policy
from smolt.training.memory.outlook import heeded, look_ahead
from smolt.training.offline import Lessons, dev_loss, plan_for, sft_loss
from smolt.training.optimizers.parameter_groups import Role, block_matrices
from smolt.training.stage import Training
from smolt.training.stage_input import settled


def pretrain(recipe: PretrainRecipe, *, out: Path | None = None, fresh: bool = False) -> Training:
    """Next-token prediction on rows of `shape.window` tokens.

    Args:
        recipe: text, tokenizer, shape and how long.
        out: run directory; a new temporary one unless given.
        fresh: set an existing run directory aside.
    """
    text = load(recipe.data, "text")
    renderer = Renderer(train_tokenizer(text.records, recipe.tokenizer.vocab, recipe.tokenizer.digits))
    items = text_rows(text.records, renderer, recipe.shape.window)
    machine = settled(recipe.model, out, fresh, (recipe.shape.hidden, mlp_of(recipe.shape)))
    precision = choose_precision(machine.device, machine.dtype, machine.threads)
    with torch.device("meta"):
        empty = LlamaForCausalLM(llama_config(recipe.shape, renderer))
    outlook = heeded(recipe, look_ahead(recipe, precision, empty, items=items))
    dev = [] if recipe.dev is None else text_rows(load(recipe.dev, "text").records, renderer, recipe.shape.window)
    lessons = Lessons(
        recipe=recipe,
        identity={"model": "from nothing", "renderer": renderer.fingerprint, "data": text.sha256},
        items=items,
        held_out=dev[: recipe.watch.items],
        outlook=outlook,
        facts={"records": len(items)},
    )
    policy = Policy(make_trunk(recipe.shape, renderer, precision, recipe.seed), None)
    network = policy.trunk.network
    matrices = block_matrices(network) if recipe.optimizer == "muon" else frozenset()
    plan = plan_for(
        lessons,
        policy,
        sft_loss(policy),
        lambda directory: save_policy(policy, renderer, directory),
        trained=Role(policy.parameters(), matrices=matrices),
    )
    plan.dev = dev_loss(plan, lessons.held_out)
    return Training(plan, out, fresh)


def text_rows(texts: Sequence[str], renderer: Renderer, window: int) -> list[Groups]:
    """All texts end to end, a stop token after each, cut into rows; a row is the answer to an empty context.

    Raises:
        UserError: there is less text than one row.
    """
    start = renderer.context(())
    size = window - len(start)
    tokens = [token for text in texts for token in renderer.answer(text)]
    rows = [tokens[place : place + size] for place in range(0, len(tokens) - size + 1, size)]
    if not rows:
        raise UserError(f"data: {len(tokens)} tokens of text are less than one row of {size}; give more text")
    return [from_answers([start], [[row]], stopped=False) for row in rows]


def mlp_of(shape: Shape) -> int:
    """Width of the feed-forward part: 8/3 of the model's, to 64ths, unless given."""
    return shape.mlp or -(-8 * shape.hidden // 3 // 64) * 64


def make_trunk(shape: Shape, renderer: Renderer, precision: Precision, seed: int) -> Trunk:
    """A Llama of the given shape with random weights, all trained."""
    hush()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(randomness.key(seed, 0) % 2**63)
        network = LlamaForCausalLM(llama_config(shape, renderer))
    trunk = Trunk(network.to(precision.device), precision, "")
    trunk.choose_forward()
    trunk.train_all()
    return trunk


def llama_config(shape: Shape, renderer: Renderer) -> LlamaConfig:
    """The configuration of a Llama of the given shape, with the tokenizer's ids."""
    tokenizer = renderer.tokenizer
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden,
        intermediate_size=mlp_of(shape),
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads or shape.heads,
        max_position_embeddings=shape.window,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=True,
        initializer_range=shape.hidden**-0.5,
        use_cache=True,
    )
