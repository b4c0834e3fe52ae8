"""The trunk: one network, on which each role (policy, critic, reward model, reference) is an adapter or a copy.

The trunk never changes under LoRA. With full weights a role is a trunk of its own. `states` is the one forward that
training uses: packed where the architecture allows, padded with the same numbers where it does not.
"""

import contextlib
import copy
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, set_peft_model_state_dict
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedModel

from smolt.config import Budget, LoRA
from smolt.errors import UserError
from smolt.models.forward import packed_attention
from smolt.models.forward.decode_step import LeanDecoder
from smolt.models.forward.gradient_checkpointing import Call, again, call, each_layer
from smolt.models.forward.kv_cache import Cache
from smolt.models.forward.packed_forward import packed_states
from smolt.models.forward.precision import Precision
from smolt.models.forward.probing import in_float32, probe
from smolt.models.forward.quiet import hush, hushed, read_by_library
from smolt.models.forward.token_budget import Room
from smolt.models.groups import Groups, pad
from smolt.models.locating import Located

LOG = logging.getLogger(__name__)
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
        module: nn.Module = self.network.base_model
        return module

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
        targets = lora.targets if isinstance(lora.targets, str) else list(lora.targets)
        kind = "SEQ_CLS" if self.network.get_output_embeddings() is None else "CAUSAL_LM"
        config = LoraConfig(
            r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=targets, task_type=kind
        )
        try:
            self._add(name, config)
        except ValueError as error:
            raise UserError(f"lora.targets: {error}") from None

    def load_adapter(self, name: str, directory: Path) -> None:
        """An adapter from a directory; missing or unexpected weights are an error, never a fresh adapter.

        Raises:
            UserError: the directory's weights do not fit.
        """
        with read_by_library(str(directory)):
            config = LoraConfig.from_pretrained(str(directory))
            weights = load_file(directory / "adapter_model.safetensors")
        self._add(name, config)
        lora_only = {key: value for key, value in weights.items() if ".lora_" in key}
        result = set_peft_model_state_dict(self.peft, lora_only, adapter_name=name)
        missing = [key for key in result.missing_keys if f".{name}." in key and "lora_" in key]
        if missing or result.unexpected_keys or not lora_only:
            wrong = [*missing, *result.unexpected_keys, "no LoRA weights"][0]
            raise UserError(f"{directory}: does not fit the base model ({wrong})")

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
        if self.packed:
            layout = packed_attention.lay_out(groups, device, with_last)
            hidden = self.run(layout)
            return hidden.index_select(0, layout.predicting), hidden.index_select(0, layout.last)
        padded, predicting, last = pad(groups)
        hidden = self._backbone_padded(*(tensor.to(device) for tensor in padded))
        chosen = hidden.flatten(0, 1)
        return chosen.index_select(0, predicting.to(device)), chosen.index_select(0, last.to(device))

    def run(self, layout: packed_attention.Layout) -> Tensor:
        """The packed forward: hidden states [N, h]."""
        if self.lean:
            with self.precision.autocast():
                return packed_states(self.network, layout, self._around)
        with self._computing():
            output = self.backbone(input_ids=layout.ids, position_ids=layout.positions, layout=layout, use_cache=False)
        hidden: Tensor = output.last_hidden_state[0]
        return hidden

    def decode(self, tokens: Tensor, cache: Cache) -> Tensor:
        """One decoding step through the network's modules: the newest tokens [slots] -> final states [slots, h]."""
        cache.begin_step()
        positions = torch.tensor(cache.positions, device=tokens.device)[:, None]
        with self.precision.autocast():
            output = self.backbone(input_ids=tokens[:, None], position_ids=positions, layout=cache, use_cache=False)
        cache.end_step()
        states: Tensor = output.last_hidden_state[:, 0]
        return states

    def lean_decoder(self, adapter: str | None, window: int) -> LeanDecoder | None:
        """The same step straight over the weights, for positions below `window`; None where the adapter forbids it."""
        try:
            return LeanDecoder(self.network, adapter, self.precision.dtype, window)
        except NotImplementedError as error:
            self.why_not_lean = str(error)
            return None

    def logits(self, groups: Groups) -> Tensor:
        """The network's own logits that predict each answer token, [M, V]: for heads that ours does not equal."""
        padded, predicting, _ = pad(groups)
        ids, positions, mask = (tensor.to(self.precision.device) for tensor in padded)
        with self._computing():
            logits = self.network(input_ids=ids, position_ids=positions, attention_mask=mask, use_cache=False).logits
        chosen: Tensor = logits.flatten(0, 1).index_select(0, predicting.to(ids.device))
        return chosen

    def _backbone_padded(self, ids: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
        with self._computing():
            output = self.backbone(input_ids=ids, position_ids=positions, attention_mask=mask, use_cache=False)
        hidden: Tensor = output.last_hidden_state
        return hidden

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
        """Use the packed forward and our head where, on 16 answer tokens, they equal the network's own.

        An architecture that does not route through the attention interface, or does something to its logits our
        head does not, keeps the padded forward with the same numbers; `why` says so.
        """
        groups = probe(self.network.config.vocab_size)
        with torch.no_grad(), self.in_full_precision():
            states, last = self.states(groups, with_last=True)
            if self.network.get_output_embeddings() is not None:
                own = torch.log_softmax(states @ self.head.T, dim=-1)
                difference = float((own - torch.log_softmax(self.logits(groups), dim=-1)).abs().max())
                self.own_head = difference <= AGREEMENT
                self.why = "" if self.own_head else f"padded, with its own head: ours differs by {difference:.1e}"
            if self.own_head or self.network.get_output_embeddings() is None:
                self._try_packed(groups, torch.cat([states, last]))

    def _try_packed(self, groups: Groups, truth: Tensor) -> None:
        implementation = self.network.config._attn_implementation
        try:
            self.network.set_attn_implementation(packed_attention.NAME)
            self.packed = True
            difference = float((torch.cat(self.states(groups, with_last=True)) - truth).abs().max() / truth.abs().max())
            if difference <= AGREEMENT:
                self._try_lean(groups, truth[: len(truth) - len(groups)])
                return
            reason = f"its states differ by {difference:.1e}"
        except (NotImplementedError, ValueError, TypeError) as error:
            reason = str(error).splitlines()[0]
        self.packed = False
        self.why = f"padded forward: {reason}"
        self.network.set_attn_implementation(implementation)

    def _try_lean(self, groups: Groups, truth: Tensor) -> None:
        """Feed the probe's answers token by token, and compare with the states [M, h] that predict them."""
        try:
            decoder = LeanDecoder(self.network, None, torch.float32, groups.tokens)
        except NotImplementedError as error:
            self.why_not_lean = str(error)
            return
        bare = Groups(groups.contexts, (), (), torch.empty(0, dtype=torch.bool))
        layout = packed_attention.lay_out(bare, self.precision.device, with_last=False)
        layout.kept = {}
        self.run(layout)
        found = decoder.states(layout.keys_and_values(groups.contexts), groups.owners, groups.answers)
        later = torch.cat([torch.arange(len(answer)) > 0 for answer in groups.answers])
        expected = truth[later.to(truth.device)]
        difference = float((found - expected).abs().max() / truth.abs().max())
        self.lean = difference <= AGREEMENT
        if not self.lean:
            self.why_not_lean = f"its states differ by {difference:.1e}"


def load_trunk(located: Located, precision: Precision, trained: bool, classifier: bool = False) -> Trunk:
    """Read a network: frozen weights are stored in the computing precision, trained ones in fp32.

    Args:
        located: the base model; an adapter is not loaded here.
        precision: where and how precisely.
        trained: whether all weights will be trained.
        classifier: read it as a sequence classifier with one label (a reward model).

    Raises:
        UserError: the model cannot be read.
    """
    hush()
    LOG.info("loading the weights of %s", located.base)
    dtype = torch.float32 if trained else precision.dtype
    kind = AutoModelForSequenceClassification if classifier else AutoModelForCausalLM
    extra = {"num_labels": 1} if classifier else {}
    with read_by_library(f"model.path: {located.base}"):
        config = AutoConfig.from_pretrained(located.base, trust_remote_code=False, **extra)
        network = kind.from_pretrained(
            located.base, config=config, dtype=dtype, trust_remote_code=False, use_safetensors=True
        )
    trunk = Trunk(network.to(precision.device), precision, located.base)
    trunk.choose_forward()
    for parameter in trunk.network.parameters():
        parameter.requires_grad_(False)
    return trunk
