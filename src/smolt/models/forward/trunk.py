"""The trunk: one network, on which each role (policy, critic, reward model, reference) is an adapter or a copy.

The trunk never changes under LoRA. With full weights a role is a trunk of its own. `states` is the one forward that
training uses: packed where the architecture allows, padded with the same numbers where it does not.
"""

import contextlib
import copy
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import cast

import torch
from peft import LoraConfig, PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedModel

from smolt.config import Budget, LoRA
from smolt.errors import UserError
from smolt.models.forward import packed_attention
from smolt.models.forward.adapter import fill, fresh_config, read_adapter, require_targets
from smolt.models.forward.decode_step import LeanDecoder
from smolt.models.forward.gradient_checkpointing import Call, again, call, each_layer
from smolt.models.forward.kv_cache import Cache
from smolt.models.forward.packed_forward import packed_states
from smolt.models.forward.precision import Precision
from smolt.models.forward.probing import alone, in_float32, narrowed, probe, row_limit, stepped, window_settings
from smolt.models.forward.quiet import hush, hushed, read_by_library, read_network
from smolt.models.forward.token_budget import Room
from smolt.models.groups import Groups, pad
from smolt.models.locating import HEAD, Located, inside_block

AGREEMENT = 1e-4  # largest difference of log-probabilities, fp32, between our forward and the model's own


class Trunk:
    """One network, its precision, and the adapters on it.

    Attributes:
        network: the Hugging Face model; with LoRA its linear layers carry the adapters.
        peft: the adapter manager, None with full weights.
        packed: whether the packed forward serves this architecture.
        own_head: whether log-probabilities come from our chunked head (else from the network's own logits).
        lean: whether packed forward and decoding step go straight over the layers (else through the network's modules).
        why, why_not_lean: the reason when they are False, for the record.
        recomputed: why layers are computed again in the backward pass, empty where they are not.
        used: the adapter in use, and whether gradients were wanted when it was switched on.
    """

    recomputed = ""

    def __init__(self, network: PreTrainedModel, precision: Precision, base: str) -> None:
        self.network = network.eval()
        self.precision = precision
        self.base = base
        self.peft: PeftModel | None = None
        self.packed = False
        self.own_head = False
        self.lean = False
        self.why = self.why_not_lean = ""
        self.used: tuple[str | None, bool] = (None, False)
        self.trained: set[str] = set()
        self.dropouts: list[nn.Module] = []

    @property
    def backbone(self) -> nn.Module:
        """The network without its head."""
        return cast(nn.Module, self.network.base_model)

    @property
    def width(self) -> int:
        """Size of the hidden states."""
        return int(self.network.config.hidden_size)

    @property
    def head(self) -> Tensor:
        """The output embedding, [V, h]."""
        weight: Tensor = self.network.get_output_embeddings().weight
        return weight

    def add_adapter(self, name: str, lora: LoRA) -> None:
        """A fresh adapter: its output is exactly zero until it is trained."""
        require_targets(self.network, lora)
        classifies = self.network.get_output_embeddings() is None
        config = fresh_config(lora, "SEQ_CLS" if classifies else "CAUSAL_LM")
        try:
            self._add(name, config)
        except ValueError as error:
            raise UserError(f"lora.targets: {error}") from None
        for key, module in self.network.named_modules():
            if isinstance(module, LoraLayer) and not inside_block(key):
                raise UserError(
                    f"lora.targets: {key.rpartition('.')[2]}: lies outside the network's blocks; smolt trains LoRA on "
                    "the linear layers inside them, since head and embeddings are read directly and may be one matrix"
                )

    def load_adapter(self, name: str, directory: Path) -> Tensor | None:
        """An adapter from a directory; missing or unexpected weights are an error, never a fresh adapter.

        Returns:
            The score head that lies beside it, [1, h]; None without one.

        Raises:
            UserError: the directory's weights do not fit.
        """
        config, weights = read_adapter(directory)
        head = weights.pop(HEAD, None)
        self._add(name, config)
        fill(self._require_peft(), name, weights, directory)
        return head

    def copy_adapter(self, name: str, source: str) -> None:
        """A frozen copy of an adapter as it is now."""
        peft = self._require_peft()
        self._add(name, peft.peft_config[source])
        parameters = dict(self.network.named_parameters())
        with torch.no_grad():
            for key, value in parameters.items():
                if f".{source}." in key:
                    parameters[key.replace(f".{source}.", f".{name}.")].copy_(value)

    def _add(self, name: str, config: LoraConfig) -> None:
        config = copy.deepcopy(config)
        config.base_model_name_or_path = self.base
        config.inference_mode = False
        config.modules_to_save = None  # a score head is ours to keep
        with hushed():
            if self.peft is None:
                # Not get_peft_model: its classes by task want a generate method, or wrap the score head.
                self.peft = PeftModel(self.network, config, adapter_name=name)
            else:
                self.peft.add_adapter(name, config)
        named = self.network.named_modules()
        self.dropouts = [part for key, part in named if ".lora_dropout." in key and isinstance(part, nn.Dropout)]
        self._restore_gradients()

    def _require_peft(self) -> PeftModel:
        if self.peft is None:
            raise RuntimeError("this trunk has no adapters")
        return self.peft

    def use(self, adapter: str | None) -> None:
        """Switch to a role's adapter, or to the bare trunk with None. Call backward() of one role before switching.

        peft turns requires_grad off for the adapters it leaves, and autograd then drops their gradients silently;
        what is trained stays trainable here. An adapter's dropout acts only where gradients are wanted.
        """
        if self.peft is None:
            return
        if adapter is None:
            self.peft.base_model.disable_adapter_layers()
        else:
            self.peft.base_model.enable_adapter_layers()
            self.peft.base_model.set_adapter(adapter)
        self._restore_gradients()
        self.used = adapter, torch.is_grad_enabled()
        for dropout in self.dropouts:
            dropout.train(torch.is_grad_enabled())

    def train_all(self) -> None:
        """Declare every weight trained (a trunk with full weights serves one role)."""
        self.network.requires_grad_(True)

    def train_adapter(self, adapter: str) -> None:
        """Declare an adapter trained."""
        self.trained.add(adapter)
        self._restore_gradients()

    def _restore_gradients(self) -> None:
        for key, parameter in self.network.named_parameters():
            parameter.requires_grad_(any(f".{name}." in key for name in self.trained))

    def adapter_parameters(self, adapter: str) -> dict[str, nn.Parameter]:
        """The parameters of one adapter by name."""
        return {key: value for key, value in self.network.named_parameters() if f".{adapter}." in key}

    @property
    def room(self) -> Room:
        """What decides how many tokens fit into a memory."""
        return Room.of(self.network, 4 if self.precision.dtype == torch.float32 else 2, self.packed)

    def micro_tokens(self, memory: float) -> int:
        """Packed tokens whose activations fit in `memory` GiB, by the network's shape: the same on every run."""
        return self.room.tokens(memory, bool(self.recomputed))

    def settle(self, budget: Budget, items: Iterable[Groups]) -> int:
        """Decide whether layers are recomputed; the tokens of a micro-batch then.

        Args:
            budget: the recipe's.
            items: all rows that will be learned from, or the longest that may be.

        Raises:
            UserError: budget.checkpointing asks for what this network cannot do.
        """
        room = self.room
        self.recomputed = room.reason(budget, room.largest(items) if budget.checkpointing == "auto" else 0)
        return self.micro_tokens(budget.memory)

    def states(self, groups: Groups, with_last: bool = False) -> tuple[Tensor, Tensor]:
        """Final hidden states that predict each answer token, and those AT each last answer token.

        Returns:
            ([M, h] in the order of the true entries of `groups.mask`, [B, h], empty unless `with_last`).
        """
        device = self.precision.device
        self.require_row(groups.longest_row)
        if self.packed:
            layout = packed_attention.lay_out(groups, device, with_last)
            hidden = self.run(layout)
            return hidden.index_select(0, layout.predicting), hidden.index_select(0, layout.last)
        padded, predicting, last = pad(groups)
        ids, positions, mask = (tensor.to(device) for tensor in padded)
        with self._computing():
            output = self.backbone(input_ids=ids, position_ids=positions, attention_mask=mask, use_cache=False)
        chosen = output.last_hidden_state.flatten(0, 1)
        return chosen.index_select(0, predicting.to(device)), chosen.index_select(0, last.to(device))

    def run(self, layout: packed_attention.Layout) -> Tensor:
        """The packed forward: hidden states [N, h]."""
        if self.lean:
            with self.precision.autocast():
                return packed_states(self.network, layout, self._around)
        with self._computing():
            output = self.backbone(input_ids=layout.ids, position_ids=layout.positions, layout=layout, use_cache=False)
        return cast(Tensor, output.last_hidden_state[0])

    def decode(self, tokens: Tensor, cache: Cache) -> Tensor:
        """One decoding step through the network's modules: the newest tokens [slots] -> final states [slots, h]."""
        cache.begin_step()
        positions = torch.tensor(cache.positions, device=tokens.device)[:, None]
        with self.precision.autocast():
            output = self.backbone(input_ids=tokens[:, None], position_ids=positions, layout=cache, use_cache=False)
        cache.end_step()
        return cast(Tensor, output.last_hidden_state[:, 0])

    def lean_decoder(self, adapter: str | None, window: int) -> LeanDecoder | None:
        """The same step straight over the weights, for positions below `window`; None where the adapter forbids it."""
        try:
            return LeanDecoder(self.network, adapter, self.precision.dtype, window)
        except NotImplementedError as error:
            self.why_not_lean = str(error)
            return None

    def logits(self, groups: Groups) -> Tensor:
        """The network's own logits that predict each answer token, [M, V]: for heads that ours does not equal."""
        self.require_row(groups.longest_row)
        padded, predicting, _ = pad(groups)
        ids, positions, mask = (tensor.to(self.precision.device) for tensor in padded)
        with self._computing():
            logits = self.network(input_ids=ids, position_ids=positions, attention_mask=mask, use_cache=False).logits
        chosen: Tensor = logits.flatten(0, 1).index_select(0, predicting.to(ids.device))
        return chosen

    @property
    def _around(self) -> Call:
        """What each layer of a forward goes through."""
        return again(lambda: self.used, self.network) if self.recomputed and torch.is_grad_enabled() else call

    @contextlib.contextmanager
    def _computing(self) -> Iterator[None]:
        """The precision, and what layers go through, of a forward through the network's modules."""
        with self.precision.autocast(), each_layer(self.network, self._around):
            yield

    @contextlib.contextmanager
    def in_full_precision(self) -> Iterator[None]:
        """Compute in fp32 for a moment; stored weights come back bit for bit."""
        stored, self.precision = self.precision, Precision(self.precision.device, torch.float32)
        try:
            with in_float32(self.network):
                yield
        finally:
            self.precision = stored

    def choose_forward(self) -> None:
        """Use the packed forward, the decoding step and our head where they equal the network's own.

        The truth is the network's eager forward, one row at a time, on rows longer than any window: windows are
        narrowed meanwhile, and one that this does not reach was not probed. An architecture that does not route through
        the attention interface, or does something to its logits our head does not, keeps the padded forward with the
        same numbers; `why` says so.

        Raises:
            UserError: rows of unequal length beside each other change what each of them is alone.
        """
        groups, settings = probe(self.network.config.vocab_size), window_settings(self.network)
        with torch.no_grad(), self.in_full_precision():
            wide = alone(self.network, groups, self.precision.device) if settings else None
            with narrowed(self.network, settings):
                truth = alone(self.network, groups, self.precision.device)
                self._check_padded(groups, truth)
                has_head = self.network.get_output_embeddings() is not None
                if has_head:
                    own = torch.log_softmax(truth[: -len(groups)] @ self.head.T, dim=-1)
                    difference = float((own - torch.log_softmax(self.logits(groups), dim=-1)).abs().max())
                    self.own_head = difference <= AGREEMENT
                    self.why = "" if self.own_head else f"padded, with its own head: ours differs by {difference:.1e}"
                if wide is not None and torch.equal(wide, truth):
                    self.why = f"padded forward: {settings[0]} does not act where it was looked for"
                elif self.own_head or not has_head:
                    self._try_packed(groups, truth)

    def _check_padded(self, groups: Groups, truth: Tensor) -> None:
        for name in (self.network.config._attn_implementation, "eager"):
            self.network.set_attn_implementation(name)
            difference = self._difference(groups, truth)
            if difference <= AGREEMENT or not math.isfinite(difference):  # weights that are not finite say so later
                return
        raise UserError(
            f"{self.base}: its states of a row change by {difference:.1e} with the rows beside it; smolt computes "
            "several rows at a time, so it does not train or sample from this architecture"
        )

    def _difference(self, groups: Groups, truth: Tensor) -> float:
        return float((torch.cat(self.states(groups, with_last=True)) - truth).abs().max() / truth.abs().max())

    def _try_packed(self, groups: Groups, truth: Tensor) -> None:
        implementation = self.network.config._attn_implementation
        try:
            self.network.set_attn_implementation(packed_attention.NAME)
            self.packed = True
            self._try_lean(groups, truth)
            reason = "" if self.lean else self._departure(groups, truth, self.decode)
        except (NotImplementedError, ValueError, TypeError) as error:
            reason = str(error).splitlines()[0]
        if reason:
            self.packed = False
            self.why = f"padded forward: {reason}"
            self.network.set_attn_implementation(implementation)

    def _try_lean(self, groups: Groups, truth: Tensor) -> None:
        try:
            decoder = LeanDecoder(self.network, None, torch.float32, groups.tokens)
        except NotImplementedError as error:
            self.why_not_lean = str(error)
            return
        self.lean = True
        self.why_not_lean = self._departure(groups, truth, decoder.step)
        self.lean = not self.why_not_lean

    def _departure(self, groups: Groups, truth: Tensor, step: Callable[[Tensor, Cache], Tensor]) -> str:
        """How packed forward and decoding step depart from the truth; empty where they do not."""
        difference = self._difference(groups, truth)
        if not difference <= AGREEMENT:
            return f"its states differ by {difference:.1e}"
        later = torch.cat([torch.arange(len(answer)) > 0 for answer in groups.answers]).to(truth.device)
        expected = truth[: -len(groups)][later]
        difference = float(
            (stepped(self.run, step, groups, self.precision.device) - expected).abs().max() / truth.abs().max()
        )
        return "" if difference <= AGREEMENT else f"its decoding step's states differ by {difference:.1e}"

    def require_row(self, tokens: int) -> None:
        """Refuse rows whose positions would depend on the rows beside them.

        Raises:
            UserError: a row of so many tokens is one.
        """
        limit = row_limit(self.network.config)
        if limit is not None and tokens > limit:
            raise UserError(
                f"{self.base}: a row of {tokens} tokens is longer than {limit}, beyond which this model's positions "
                f"(rope_type) depend on the longest row beside; keep context and answer within {limit} tokens"
            )


def load_trunk(
    located: Located, precision: Precision, trained: bool, classifier: bool = False, labels: int = 1
) -> Trunk:
    """Read a network: frozen weights are stored in the computing precision, trained ones in fp32.

    Args:
        located: the base model; an adapter is not loaded here.
        precision: where and how precisely.
        trained: whether all weights will be trained.
        classifier: read it as a sequence classifier (a reward model).
        labels: of the classifier.

    Raises:
        UserError: the model cannot be read.
    """
    hush()
    dtype = torch.float32 if trained else precision.dtype
    kind = AutoModelForSequenceClassification if classifier else AutoModelForCausalLM
    extra = {"num_labels": labels} if classifier else {}
    with read_by_library(f"model.path: {located.base}"):
        config = AutoConfig.from_pretrained(located.base, trust_remote_code=False, **extra)
    place = f"model.path: {located.base}"
    network = read_network(kind, located.base, place, config=config, dtype=dtype, use_safetensors=True)
    trunk = Trunk(network.to(precision.device), precision, located.base)
    trunk.choose_forward()
    for parameter in trunk.network.parameters():
        parameter.requires_grad_(False)
    return trunk
