"""The engine gives the sampler's answers, whoever else is asking, and takes new requests while it decodes."""

import threading
from collections.abc import Sequence
from concurrent.futures import CancelledError
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from smolt.data import Turn
from smolt.errors import UserError
from smolt.models.rendering import load_renderer
from smolt.models.sampling import Drawing, Slots, sample
from smolt.models.saving import load_policy
from smolt.serving import lane
from smolt.serving.engine import Engine
from smolt.serving.read_prompts import ReadPrompts
from smolt.serving.stream import AnswerStream, Piece, QueueFull, Request
from tests.serving.conftest import Engines, Models, policy_of
from tests.tiny import WINDOW, Architecture, tiny_model

ASKED = Request("tiny", [5, 6, 7], 30)


def tokens(pieces: Sequence[Piece]) -> list[int]:
    return [piece.token_id for piece in pieces if piece.token_id is not None]


def text(pieces: Sequence[Piece]) -> str:
    return "".join(piece.text for piece in pieces)


def mixed(count: int) -> list[Request]:
    """Requests of unlike lengths, limits and settings."""
    return [
        replace(
            ASKED,
            context=list(range(5 + at, 6 + at + at * 7 % 60)),
            max_tokens=8 + at * 11 % 50,
            temperature=(0.0, 1.0, 0.7)[at % 3],
            top_p=(1.0, 0.9)[at % 2],
            top_k=(0, 0, 0, 5)[at % 4],
            repetition=(1.0, 1.0, 1.3)[at % 3],
            seed=at,
            copy=at % 3,
        )
        for at in range(count)
    ]


def sampled(directory: Path, request: Request) -> tuple[list[int], bool]:
    """The same answer by `sample`: its tokens with the stop token, and whether it has one."""
    drawing = Drawing(
        request.max_tokens,
        request.temperature,
        4,
        load_renderer(directory).stop_ids,
        top_p=request.top_p,
        top_k=request.top_k,
        repetition=request.repetition,
    )
    found = sample(policy_of(directory), [request.context], request.copy + 1, drawing, (request.seed, 0))
    return found.answers[request.copy].tolist(), bool(found.stopped[request.copy])


def check(directory: Path, stream: AnswerStream) -> None:
    """The stream holds exactly the sampler's answer."""
    pieces, renderer = list(stream), load_renderer(directory)
    expected, stopped = sampled(directory, stream.request)
    assert tokens(pieces) == expected[: -1 if stopped else None]
    assert text(pieces) == renderer.decode(expected)
    assert (stream.tokens, stream.reason) == (len(expected), "stop" if stopped else "length")


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma3_text", "gpt_neo"])
def test_answers_are_the_samplers_whoever_else_asks(
    architecture: Architecture, models: Models, engines: Engines
) -> None:
    """20 unlike requests in 4 slots at once: token for token `sample`'s of (seed, 0) and copy, and so again alone."""
    engine = engines(architecture, slots=4, queue=16)
    for stream in [engine.submit(request) for request in mixed(20)]:
        check(models(architecture), stream)
    for request in mixed(20)[::7]:
        check(models(architecture), engine.submit(request))


def test_a_request_joins_while_another_is_written(models: Models, engines: Engines) -> None:
    """Asked after the first token of a long answer, the short one ends before it; both are the sampler's."""
    engine, directory = engines(slots=2), models("llama")
    long = engine.submit(replace(ASKED, max_tokens=120, seed=_endless(directory)))
    pieces = iter(long)  # one iterator: it takes all that has come, and hands it out one by one
    first = next(pieces)
    short = engine.submit(replace(ASKED, max_tokens=4, temperature=0.0))
    check(directory, short)
    assert not long.ended or long.tokens == 120
    rest = list(pieces)
    expected, stopped = sampled(directory, long.request)
    assert tokens([first, *rest]) == expected[: -1 if stopped else None]


def _endless(directory: Path) -> int:
    """A seed whose answer to ASKED has 120 tokens."""
    return next(seed for seed in range(50) if not sampled(directory, replace(ASKED, max_tokens=120, seed=seed))[1])


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gpt2", "gemma3_text", "gpt_neo"])
def test_long_prompts_are_read_in_pieces(
    architecture: Architecture, models: Models, engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prompts of 1 to 100 tokens, 7 at a time, a window of 8 in gemma3's local layers: the sampler's answers."""
    monkeypatch.setattr(lane, "PIECE", 7)
    engine = engines(architecture, slots=3)
    requests = [replace(ASKED, context=list(range(5, 5 + length)), max_tokens=20) for length in (100, 1, 7, 8, 50, 3)]
    for stream in [engine.submit(request) for request in requests]:
        check(models(architecture), stream)


def test_a_long_prompt_does_not_hold_up_answers_under_way(engines: Engines, monkeypatch: pytest.MonkeyPatch) -> None:
    """A prompt of 100 tokens, 10 at a time: 9 decoding steps of the other answer lie between its pieces."""
    monkeypatch.setattr(lane, "PIECE", 10)
    done: list[str] = []
    read, step = Slots.read, Slots.step

    def reading(self: Slots, piece: object, before: object) -> object:
        done.append("read")
        return read(self, piece, before)  # type: ignore[arg-type]  # handed on as it came

    def stepping(self: Slots) -> object:
        done.append("step" if len(self.rows) else "idle")
        return step(self)

    engine = engines(slots=2)
    engine.load("tiny")
    monkeypatch.setattr(Slots, "read", reading)
    monkeypatch.setattr(Slots, "step", stepping)
    running = engine.submit(replace(ASKED, max_tokens=100, stop=(), temperature=0.0))
    next(iter(running))
    list(engine.submit(replace(ASKED, context=list(range(5, 105)), max_tokens=2)))
    engine.close()
    places = [at for at, what in enumerate(done) if what == "read"]
    assert len(places) == 10
    assert all(done[at + 1] == "step" for at in places[:-1])


def test_one_thread_computes(engines: Engines, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has a model loaded, the engine's thread reads it; a second thread that computes would slow it down."""
    read: list[str] = []
    load = load_policy

    def loading(*arguments: object) -> object:
        read.append(threading.current_thread().name)
        return load(*arguments)  # type: ignore[arg-type]  # handed on as they came

    monkeypatch.setattr(lane, "load_policy", loading)
    engine = engines()
    engine.load("tiny")
    engine.load("tiny")
    assert read == ["smolt-engine"]
    engine.close()
    with pytest.raises(CancelledError):
        engine.load("tiny")


def test_copies_share_their_prompt(models: Models, engines: Engines, monkeypatch: pytest.MonkeyPatch) -> None:
    """8 answers to one prompt in 3 slots: it is read once, and they are copies 0 to 7 of `sample`."""
    read: list[int] = []
    whole = Slots.read_whole

    def reading(self: Slots, contexts: Sequence[object]) -> object:
        read.append(len(contexts))
        return whole(self, contexts)  # type: ignore[arg-type]  # handed on as they came

    monkeypatch.setattr(Slots, "read_whole", reading)
    engine = engines(slots=3)
    streams = [engine.submit(replace(ASKED, copy=copy, seed=3)) for copy in range(8)]
    for stream in streams:
        check(models("llama"), stream)
    assert sum(read) == 1
    assert len({tuple(sampled(models("llama"), stream.request)[0]) for stream in streams}) > 1


def test_the_first_copy_is_the_first_answer_of_the_chat(models: Models, engines: Engines) -> None:
    """Seed 4, temperature 0.7: the text that `smolt chat --seed 4` gives."""
    from smolt.config import ChatSampling
    from smolt.models.conversation import Conversation

    directory = models("llama")
    engine = engines()
    renderer = engine.renderer("tiny")
    talk = Conversation(policy_of(directory), renderer, WINDOW, ChatSampling(max_tokens=20, temperature=0.7, seed=4))
    talk.ask("Hi.")
    expected = "".join(talk.answer(lambda: False))
    context = renderer.context((Turn("user", "Hi."),))
    assert text(list(engine.submit(Request("tiny", context, 20, temperature=0.7, seed=4)))) == expected


def test_a_stop_text_ends_an_answer_and_is_no_part_of_it(models: Models, engines: Engines) -> None:
    """Three characters in the middle of an answer as stop text: all before them, reason "stop", no piece more."""
    engine = engines()
    whole = text(list(engine.submit(replace(ASKED, temperature=0.0))))
    assert len(whole) > 12
    for at in range(2, 9):
        stop = whole[at : at + 3]
        stream = engine.submit(replace(ASKED, temperature=0.0, stop=("never in it", stop)))
        pieces = list(stream)
        assert text(pieces) == whole[: whole.index(stop)]
        assert stream.reason == "stop"
        assert stream.tokens < 30


def test_no_piece_holds_half_a_character(models: Models, engines: Engines) -> None:
    """100 answers of random bytes: no piece but a last one ends in the sign for a broken character."""
    engine = engines(queue=100)
    for stream in [engine.submit(replace(ASKED, seed=seed)) for seed in range(100)]:
        pieces = list(stream)
        assert not [piece for piece in pieces[:-1] if piece.text.endswith("\ufffd") and piece.token_id is None]
        assert text(pieces) == load_renderer(models("llama")).decode(tokens(pieces))


def test_log_probabilities_and_the_likeliest_tokens(models: Models, engines: Engines) -> None:
    """Within 1e-5 of `sample`'s; 5 listed, falling, the greedy token first with the same number."""
    directory = models("llama")
    engine = engines()
    pieces = list(engine.submit(replace(ASKED, temperature=0.0, logprobs=True, top_logprobs=5)))
    drawing = Drawing(30, 0.0, 1, load_renderer(directory).stop_ids)
    expected = sample(policy_of(directory), [ASKED.context], 1, drawing, (0, 0)).columns["sampled"][0].tolist()
    for piece, logprob in zip([piece for piece in pieces if piece.token_id is not None], expected, strict=False):
        assert piece.logprob == pytest.approx(logprob, abs=1e-5)
        assert piece.likeliest[0] == (piece.token_id, piece.logprob)
        values = [value for _, value in piece.likeliest]
        assert len(values) == 5 and values == sorted(values, reverse=True)
    assert all(piece.logprob is None for piece in engine.submit(ASKED))


def test_a_cancelled_answer_gives_its_slot_to_the_next(models: Models, engines: Engines) -> None:
    """One slot: a long answer is cancelled after 3 tokens, ends as "cancelled", and the one that waited is complete."""
    engine, directory = engines(slots=1), models("llama")
    long = engine.submit(replace(ASKED, max_tokens=120, seed=_endless(directory)))
    waiting, given_up = engine.submit(replace(ASKED, seed=1)), engine.submit(replace(ASKED, seed=2))
    pieces = iter(long)
    for _ in range(3):
        next(pieces)
    given_up.cancel()
    long.cancel()
    list(pieces)
    assert long.reason == "cancelled" and long.tokens < 120
    check(directory, waiting)
    assert list(given_up) == [] and given_up.reason == "cancelled"
    assert engine.active("tiny") == 0


def test_a_full_queue_says_so_and_asks_nothing(engines: Engines) -> None:
    """2 slots and 3 places: the sixth is refused; when one has ended there is room."""
    engine = engines(slots=2, queue=3)
    streams = [engine.submit(replace(ASKED, max_tokens=100, seed=seed)) for seed in range(5)]
    with pytest.raises(QueueFull, match=r"2 answers are being written and 3 more are waiting"):
        engine.submit(ASKED)
    list(streams[0])
    list(engine.submit(ASKED))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "other"}, "the model 'other' is not served here; there is tiny"),
        ({"context": []}, "the prompt has no tokens"),
        ({"context": [5] * WINDOW}, f"the prompt has {WINDOW} tokens; the model's window is {WINDOW}"),
        ({"context": [266]}, "a token id that the model does not know; they go from 0 to 265"),
        ({"context": [-1]}, "a token id that the model does not know"),
        ({"max_tokens": 0}, "max_tokens: must be at least 1, not 0"),
        ({"temperature": float("nan")}, "temperature: must be"),
        ({"temperature": -1.0}, "temperature: must be"),
        ({"top_p": 0.0}, "top_p: must be above 0"),
        ({"top_k": -1}, "top_k: must be"),
        ({"repetition": 0.5}, "repetition: must be"),
        ({"seed": 2**63}, "seed: must be a whole number of 64 bits"),
        ({"stop": ("",)}, "stop: must be texts"),
        ({"top_logprobs": 3}, "top_logprobs: must be 0 without logprobs"),
    ],
)
def test_what_cannot_be_answered_is_refused_at_once(changes: dict[str, object], message: str, engines: Engines) -> None:
    with pytest.raises(UserError, match=message):
        engines().submit(replace(ASKED, **changes))  # type: ignore[arg-type]  # wrong on purpose


def test_the_window_ends_an_answer(models: Models, engines: Engines) -> None:
    """A prompt of WINDOW - 5 tokens, 100 wanted: 5 tokens at most, reason "length"."""
    directory = models("llama")
    context = list(range(5, 5 + WINDOW - 5))
    seed = next(
        at for at in range(50) if not sampled(directory, replace(ASKED, context=context, max_tokens=5, seed=at))[1]
    )
    stream = engines().submit(replace(ASKED, context=context, max_tokens=100, seed=seed))
    assert len(tokens(list(stream))) == 5
    assert (stream.reason, stream.tokens) == ("length", 5)


def test_a_model_that_cannot_be_read_fails_its_answers_alone(models: Models, tmp_path: Path) -> None:
    """Damaged weights: its answers raise the reason; the other model's come."""
    damaged = tiny_model(tmp_path / "damaged")
    (damaged / "model.safetensors").write_bytes(b"\x00" * 100)
    engine = Engine({"damaged": damaged, "tiny": models("llama")})
    bad, good = engine.submit(replace(ASKED, model="damaged")), engine.submit(ASKED)
    with pytest.raises(UserError, match="damaged"):
        list(bad)
    check(models("llama"), good)
    engine.close()


def test_several_models_answer_side_by_side(models: Models) -> None:
    """Two architectures under two names: each request gets its own model's answer."""
    engine = Engine({"one": models("llama"), "two": models("gpt2")}, slots=2)
    streams = [engine.submit(replace(ASKED, model=name, seed=seed)) for seed in range(3) for name in ("one", "two")]
    for stream in streams:
        check(models("llama" if stream.request.model == "one" else "gpt2"), stream)
    engine.close()


def test_memory_lets_answers_wait_rather_than_fail(models: Models, engines: Engines) -> None:
    """Room for the keys and values of about 200 tokens: 6 answers of 60 take turns, and are the sampler's."""
    of_a_token = 2 * 2 * 8 * 2 * 4  # layers, heads, d, keys and values, fp32
    engine = engines(slots=6, memory=200 * of_a_token / 2**30)
    streams = [engine.submit(replace(ASKED, max_tokens=60, seed=seed)) for seed in range(6)]
    for stream in streams:
        check(models("llama"), stream)


def test_closing_ends_what_is_under_way(engines: Engines) -> None:
    """Answers end as cancelled, nothing more is taken, and the thread is gone."""
    engine = engines(slots=1)
    streams = [engine.submit(replace(ASKED, max_tokens=120, seed=seed)) for seed in range(3)]
    engine.close()
    for stream in streams:
        list(stream)
        assert stream.reason in ("cancelled", "stop", "length")
    assert streams[-1].reason == "cancelled"
    with pytest.raises(QueueFull, match="has ended"):
        engine.submit(ASKED)


def test_the_next_turn_of_a_conversation_reads_what_is_new(
    models: Models, engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pieces of 10: of 42 tokens 30 stand already, whose first 35 were asked before; asked once more, none is read."""
    monkeypatch.setattr(lane, "PIECE", 10)
    read: list[int] = []
    one_piece = Slots.read

    def reading(self: Slots, piece: Tensor, before: object) -> object:
        read.append(len(piece))
        return one_piece(self, piece, before)  # type: ignore[arg-type]  # handed on as it came

    engine = engines()
    engine.load("tiny")
    monkeypatch.setattr(Slots, "read", reading)
    kept = []
    for length in (35, 42, 42, 9, 9):
        stream = engine.submit(replace(ASKED, context=list(range(5, 5 + length)), temperature=0.0))
        check(models("llama"), stream)
        kept.append(stream.kept)
    assert (kept, read) == ([0, 30, 42, 0, 9], [10, 10, 10, 5, 10, 2])


def test_prompts_that_were_read_take_no_more_than_their_share() -> None:
    """Room for two of three: the one that was not looked for goes. One that is too large alone is not kept."""
    pairs = [(torch.ones(4, 1, 8), torch.ones(4, 1, 8))]  # 256 bytes, and 40 of logits
    prompts = ReadPrompts(most=600, piece=128)
    for tokens in ((1,) * 4, (2,) * 4):
        prompts.keep(tokens, pairs, torch.zeros(10))
    assert prompts.find((1,) * 4) is not None
    prompts.keep((3,) * 4, pairs, torch.zeros(10))
    assert [prompts.find((which,) * 4) is not None for which in (1, 2, 3)] == [True, False, True]
    prompts.keep((4,) * 12, [(torch.ones(12, 1, 8), torch.ones(12, 1, 8))], torch.zeros(10))
    assert prompts.find((4,) * 12) is None


def test_a_listener_hears_of_everything(engines: Engines) -> None:
    """What `take` gives after each call of the listener is the whole answer."""
    import threading

    engine, heard = engines(), threading.Event()
    stream = engine.submit(replace(ASKED, temperature=0.0))
    stream.listen(heard.set)
    pieces, over = [], False
    while not over:
        assert heard.wait(60)
        heard.clear()
        new, over = stream.take()
        pieces += new
    assert text(pieces) == text(list(engine.submit(replace(ASKED, temperature=0.0))))
