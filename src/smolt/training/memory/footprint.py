"""What a training holds in memory at its peak, derived from the shape of its network: arithmetic on whole numbers.

A layer keeps for its backward pass what autograd is given to keep: the input of each norm, the input of each linear
layer that learns (a frozen one needs only its weight), queries, keys, values and outputs of attention, and what the
feed-forward part multiplies. A test counts the bytes that autograd really keeps and compares.
"""

from collections.abc import Iterator
from dataclasses import dataclass

FLOAT, HALF = 4, 2  # bytes of a number
MOMENTS, GRADIENT = 8, 4  # bytes a trained parameter: AdamW's two moments, and the gradient while there is one
MOMENTUM = 4  # and of one that Muon trains
LOGITS_AT_A_TIME = 8 * 2**20  # of models.forward.logprobs
LOGIT_COPIES = 3  # of these in fp32: logits, their log-softmax, its gradient
PREFILL_TOKENS = 4096  # of smolt.sampling
HEAP = 1.2  # bytes that the C library holds for one byte that is kept among others that are not
DROPPED_HEAP = 0.8  # and for one of an intermediate result that is dropped at once and leaves a hole
SLACK = 160 * 2**20  # and for free blocks of up to 32 MiB that it keeps; at most half of what is kept


@dataclass(frozen=True)
class Linear:
    """A linear layer of one transformer block.

    Attributes:
        name: the last part of its module's name.
        inputs, outputs: features.
    """

    name: str
    inputs: int
    outputs: int

    @property
    def weights(self) -> int:
        """Entries of its matrix."""
        return self.inputs * self.outputs


TOGETHER = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Linear layers with one input."""


@dataclass(frozen=True)
class Network:
    """The shape of a network.

    Attributes:
        width: of the hidden states.
        layers: transformer blocks.
        heads: of the queries.
        queries, keys: numbers a token in all heads of the queries, and in those of the keys.
        vocabulary: rows of the output embedding.
        linears: of one block.
        norms: numbers a token that go into the norms of one block, which keep them.
        scaled: numbers a token that norms of several operations multiply with a weight, and keep where it is trained.
        gates: numbers a token that the feed-forward part of one block keeps besides the inputs of its linear layers.
        dropped: numbers a token of intermediate results of its activation function.
        parameters: of the whole network.
        buffers: bytes that are not parameters.
        file: bytes of a parameter on the disk.
        packed: whether its forward is packed; else padded, with eager attention.
        lean: whether it decodes straight over the weights.
    """

    width: int
    layers: int
    heads: int
    queries: int
    keys: int
    vocabulary: int
    linears: tuple[Linear, ...]
    norms: int
    scaled: int
    gates: int
    dropped: int
    parameters: int
    buffers: int
    file: int
    packed: bool
    lean: bool

    @property
    def blocks(self) -> int:
        """Entries of the matrices of all blocks."""
        return self.layers * sum(linear.weights for linear in self.linears)

    @property
    def products(self) -> int:
        """Entries of all matrices that a decoding step multiplies with: those of the blocks, and the head."""
        return self.blocks + self.vocabulary * self.width


@dataclass(frozen=True)
class Way:
    """How a network is trained.

    Attributes:
        half: whether it computes in bf16 or fp16.
        rank: of its adapters; 0 trains all weights.
        targets: names of the adapted layers; None adapts every one.
        recomputed: whether each layer is computed again in the backward pass.
        dora: whether the size of each adapted weight is trained apart.
        muon: whether Muon trains the matrices of the blocks.
    """

    half: bool
    rank: int
    targets: frozenset[str] | None = None
    recomputed: bool = False
    dora: bool = False
    muon: bool = False

    @property
    def number(self) -> int:
        """Bytes of a number that is computed."""
        return HALF if self.half else FLOAT

    @property
    def state(self) -> int:
        """Bytes of a number of the hidden states, and of a stored weight: what is trained is stored in fp32."""
        return HALF if self.half and self.rank else FLOAT

    def adapts(self, linear: Linear) -> bool:
        """Whether this layer carries an adapter."""
        return self.rank > 0 and (self.targets is None or linear.name in self.targets)

    def learns(self, linear: Linear) -> bool:
        """Whether this layer's input is kept."""
        return self.rank == 0 or self.adapts(linear)


@dataclass(frozen=True)
class Batch:
    """A micro-batch.

    Attributes:
        tokens: rows of the linear layers, padding included.
        keys: keys that attention gathers: a context's once more for each answer after its first.
        scores: entries of the attention matrices that are kept, for one head.
        predicted: answer tokens.
    """

    tokens: int
    keys: int
    scores: int
    predicted: int


@dataclass(frozen=True)
class Rollout:
    """What is sampled side by side.

    Attributes:
        slots: answers at a time.
        contexts: questions of an update.
        longest: tokens of the longest context.
        steps: tokens of the longest answer.
    """

    slots: int
    contexts: int
    longest: int
    steps: int


def trained(network: Network, way: Way) -> int:
    """Parameters that are trained."""
    if not way.rank:
        return network.parameters
    adapted = [linear for linear in network.linears if way.adapts(linear)]
    ends = sum(linear.inputs + linear.outputs for linear in adapted)
    sizes = sum(linear.outputs for linear in adapted) if way.dora else 0
    return network.layers * (way.rank * ends + sizes)


def moments(network: Network, way: Way) -> int:
    """Bytes that the optimizer keeps of what is trained."""
    return MOMENTS * trained(network, way) - (MOMENTS - MOMENTUM) * (network.blocks if way.muon else 0)


def stored(network: Network, way: Way) -> int:
    """Bytes of the network as it is held while it is trained."""
    return network.parameters * way.state + network.buffers


def layer_token(network: Network, way: Way) -> int:
    """Bytes a token that one block keeps for its backward pass, attention left out.

    With DoRA each adapted layer keeps its own output and its adapter's, which it multiplies by a trained size.
    """
    norm = FLOAT if network.scaled and not network.lean else way.state  # of several operations, the first casts
    kept = network.norms * norm + network.gates * way.number
    if not way.rank and (way.half or not network.lean):
        kept += network.scaled * way.number
    if way.dora:
        kept += way.number * 2 * sum(linear.outputs for linear in network.linears if way.adapts(linear))
    return kept + way.number * sum(linear.inputs for linear in _inputs(network, way))


def _inputs(network: Network, way: Way) -> Iterator[Linear]:
    """The layers whose inputs are kept: one that several share once, unless each casts it for itself."""
    casting = way.half and not (way.rank and network.lean and not way.dora)
    seen: set[tuple[str, ...]] = set()
    for linear in network.linears:
        if not way.learns(linear):
            continue
        group = next((names for names in TOGETHER if linear.name in names), (linear.name,))
        if casting or group not in seen:
            yield linear
        seen.add(group)


def attention(network: Network, way: Way, batch: Batch) -> int:
    """Bytes that the attention of one block keeps."""
    if network.packed:
        both = network.queries * batch.tokens + network.keys * batch.keys  # queries and keys, outputs and values
        return way.number * (2 * both + network.heads * batch.scores)
    score = way.number + (FLOAT if way.half and not way.rank else 0)  # autocast's softmax is fp32, and cast after it
    return way.number * 3 * network.queries * batch.tokens + score * network.heads * batch.scores


def activations(network: Network, way: Way, batch: Batch) -> int:
    """Bytes that a micro-batch holds as its backward pass begins, the C library's share included."""
    kept = kept_for_backward(network, way, batch)
    dropped = network.dropped
    if not network.lean or way.dora:  # else adapters add to the outputs in place
        dropped += sum(linear.outputs for linear in network.linears if way.adapts(linear))
    holes = DROPPED_HEAP * (1 if way.recomputed else network.layers) * dropped * way.number * batch.tokens
    casts = HALF * network.blocks if way.half and not way.rank else 0  # copies of trained weights by autocast
    return int(HEAP * kept + holes + min(SLACK, kept / 2)) + casts


def kept_for_backward(network: Network, way: Way, batch: Batch) -> int:
    """Bytes of what all blocks keep, of the gradients of one of them, and of the hidden states at the ends.

    Recomputed, the blocks keep their inputs, and one at a time all of its own.
    """
    block = layer_token(network, way) * batch.tokens + attention(network, way, batch)
    scores = 0 if network.packed else 2 * FLOAT * network.heads * batch.scores  # of one block, before its softmax
    inputs = network.layers * network.width * way.state * batch.tokens
    blocks = inputs + 2 * block if way.recomputed else (network.layers + 1) * block
    return blocks + scores + network.width * way.state * (batch.tokens + 2 * batch.predicted)


def logprobs(network: Network, way: Way, predicted: int) -> int:
    """Bytes of one chunk of logits, and of the gradients of an embedding that is trained."""
    entries = min(max(LOGITS_AT_A_TIME, network.vocabulary), predicted * network.vocabulary)
    head = network.vocabulary * network.width
    trained_head = 0 if way.rank else head * (FLOAT + (2 * HALF if way.half else FLOAT))
    return entries * (LOGIT_COPIES * FLOAT + way.number) + trained_head


def sampling(network: Network, way: Way, rollout: Rollout) -> int:
    """Bytes of the decoder's copies of weights, the cache of keys and values, and the logits of one step."""
    logits = rollout.slots * network.vocabulary * (way.number + 4 * FLOAT)
    token = 2 * network.layers * network.keys * way.number
    if not network.packed:
        whole = rollout.slots * rollout.longest
        first = whole * network.vocabulary * way.number  # the network's own head runs over the whole contexts
        return max(first, logits) + token * (whole + rollout.slots * rollout.steps)
    contexts = min(rollout.contexts, rollout.slots + 1)
    prefill = min(PREFILL_TOKENS, rollout.contexts * rollout.longest)
    cached = token * (rollout.slots * rollout.steps + contexts * rollout.longest)
    return decoder(network, way) + cached + max(logits, token * prefill)


def decoder(network: Network, way: Way) -> int:
    """Bytes of the lean decoder's own copies of weights: all of them, in oneDNN's order."""
    return way.number * network.products if network.lean else 0


def loading(network: Network, way: Way) -> int:
    """Bytes beyond the stored weights while they are read, and compared with the network's own forward in fp32."""
    other_kind = network.file != way.state
    copies = (FLOAT * network.parameters if way.state == HALF else 0) + (
        FLOAT * network.products if network.lean else 0
    )
    return max(network.parameters * network.file if other_kind else 0, copies)


@dataclass(frozen=True)
class Estimate:
    """Bytes at the peak of a training, by part.

    Attributes:
        process: Python, the libraries and the data, measured before the model is loaded.
        weights: of all networks: the trained one, a reference, a critic, reward models.
        loading: copies while the model is read and checked.
        moments: of AdamW, and of Muon.
        gradients: of what is trained, at the moment when most is held: an update's first micro-batch finds none.
        activations: of the micro-batch that is computed then.
        logprobs: a chunk of logits.
        sampling: the decoder's weights, keys and values, logits.
    """

    process: int
    weights: int
    loading: int
    moments: int
    gradients: int
    activations: int
    logprobs: int
    sampling: int

    @property
    def peaks(self) -> dict[str, int]:
        """The most that is held while loading, sampling and learning; the last two with the moments of update 1."""
        held = self.process + self.weights
        learning = self.moments + self.gradients + self.activations + self.logprobs
        return {
            "loading": held + self.loading,
            "sampling": held + (self.moments + self.sampling if self.sampling else 0),
            "learning": held + learning,
        }

    @property
    def peak(self) -> int:
        """The largest of them."""
        return max(self.peaks.values())

    @property
    def needed(self) -> int:
        """What the process does not hold yet."""
        return self.peak - self.process


@dataclass(frozen=True)
class Work:
    """A training as far as memory is concerned.

    Attributes:
        network, way: what is trained and how.
        first: the largest first micro-batch of an update.
        later: the largest of the others, None where each update is one.
        rollout: what it samples, None offline.
        copies: further networks of its shape as they are stored, a reference or a critic.
        roles: how many of them are trained, one after the other.
        raters: bytes of reward models.
        process: bytes held before the model is loaded.
        head: whether log-probabilities are computed (a reward model has none).
    """

    network: Network
    way: Way
    first: Batch
    later: Batch | None
    rollout: Rollout | None
    copies: int
    roles: int
    raters: int
    process: int
    head: bool = True

    def estimate(self) -> Estimate:
        """What it will hold."""
        network, way = self.network, self.way
        parameters = self.roles * trained(network, way)
        adapters = FLOAT * parameters if way.rank else 0
        gradients, activated = max(self._moments_of_an_update(GRADIENT * parameters), key=sum)
        return Estimate(
            process=self.process,
            weights=stored(network, way) * (1 + self.copies) + adapters + self.raters,
            loading=loading(network, way),
            moments=self.roles * moments(network, way),
            gradients=gradients,
            activations=activated,
            logprobs=logprobs(network, way, self.first.predicted) if self.head else 0,
            sampling=sampling(network, way, self.rollout) if self.rollout else 0,
        )

    def _moments_of_an_update(self, gradients: int) -> Iterator[tuple[int, int]]:
        """(gradients, activations): after its last micro-batch, in its first and in a later one.

        In the first one only the roles before the last have gradients yet.
        """
        yield gradients, 0
        yield gradients * (self.roles - 1) // self.roles, activations(self.network, self.way, self.first)
        if self.later is not None:
            yield gradients, activations(self.network, self.way, self.later)
