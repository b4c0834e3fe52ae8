"""Tokens a second of `smolt serve` and of llama.cpp's server, with concurrent streaming clients on the same weights.

python -m bench.serve MODEL GGUF [GGUF ...] [--clients 1 4 16] [--tokens 128] [--rounds 3] [--slots 16]
    [--llama-slots 16] [--threads 2] [--dtype fp32]

GGUF holds the weights of MODEL (`smolt export MODEL --gguf --type f32`, or q8_0). A dtype is fp32 or bf16, or either
with +int8 (`--weights int8`); several dtypes and files are servers beside each other:

python -m bench.serve MODEL MODEL-q8_0.gguf --dtype fp32 bf16 fp32+int8 bf16+int8 --clients 1 2 --rounds 5

Each server is a process of its own and the only one that runs. A round is one request of each client at once: a chat of
one message, temperature 1, at most so many tokens.
The figure is all tokens of a round, as the server counts them, over its seconds; medians over the rounds and their
range, the servers in turn. The first token is the time until the first piece of text comes, median over clients.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

from bench.measuring import installed, processor

QUESTIONS = (
    "Tell me a story about a lighthouse.",
    "How does a bicycle stay upright?",
    "Write a letter to a neighbour about a noisy dog.",
    "What should I see in a town by the sea?",
    "Explain how bread rises, step by step.",
    "Describe a day in the life of a beekeeper.",
    "Compare trains and buses for a short journey.",
    "Give me advice on learning to play the piano.",
)
WINDOW = 2048
LLAMA = """
import sys, time, xllamacpp
file, slots, threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
given = xllamacpp.CommonParams()
given.model.path = file
given.n_ctx, given.n_parallel, given.cont_batching, given.port = slots * int(sys.argv[4]), slots, True, 0
given.cpuparams.n_threads = given.cpuparams_batch.n_threads = threads
server = xllamacpp.Server(given)
print(server.listening_address, flush=True)
time.sleep(10**6)
"""


@dataclass(frozen=True)
class Round:
    """What one round gave: tokens of all clients, its seconds, and the median seconds until a first piece."""

    tokens: int
    seconds: float
    first: float


async def client(url: str, model: str, number: int, tokens: int) -> tuple[int, float]:
    """One streaming request by hand, so that the client costs little beside the server: tokens, and the first piece."""
    place = urlsplit(url)
    body = json.dumps(
        {
            "model": model,
            "messages": [{"role": "user", "content": QUESTIONS[number % len(QUESTIONS)]}],
            "max_tokens": tokens,
            "temperature": 1,
            "seed": number,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    ).encode()
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Type: application/json\r\n"
    began, first, counted = time.perf_counter(), 0.0, 0
    writer.write(head.encode() + f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
    async for line in reader:
        if not line.startswith(b"data: {"):
            continue
        event: dict[str, Any] = json.loads(line.removeprefix(b"data: "))
        if not first and any(choice["delta"].get("content") for choice in event.get("choices", [])):
            first = time.perf_counter() - began
        if event.get("usage"):
            counted = int(event["usage"]["completion_tokens"])
    writer.close()
    if not counted:
        raise SystemExit(f"{url}: a stream ended without a count of tokens")
    return counted, first


async def one_round(url: str, model: str, clients: int, tokens: int, start: int) -> Round:
    """One request of each client at once."""
    began = time.perf_counter()
    found = await asyncio.gather(*(client(url, model, start + number, tokens) for number in range(clients)))
    seconds = time.perf_counter() - began
    return Round(sum(tokens for tokens, _ in found), seconds, median(first for _, first in found))


@contextmanager
def server(command: Sequence[str], threads: int) -> Iterator[str]:
    """A server's address, once it has printed it; the process ends with the block."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment)
    try:
        said = process.stdout.readline() if process.stdout else ""
        url = next((word for word in said.split() if word.startswith("http")), "")
        if not url:
            raise SystemExit(f"{' '.join(command[:4])} ... did not come up")
        yield url.removesuffix("/v1")
    finally:
        process.terminate()
        process.wait(30)


def commands(choice: argparse.Namespace) -> dict[str, list[str]]:
    """Side -> the command that serves its model."""
    ours = [sys.executable, "-m", "smolt", "serve", f"it={choice.model}", "--port", "0"]
    ours += ["--slots", str(choice.slots), "--threads", str(choice.threads)]
    found = {}
    for kind in choice.dtype:
        dtype, _, weights = kind.partition("+")
        found[f"smolt serve, {kind}"] = [*ours, "--dtype", dtype, *(["--weights", weights] if weights else [])]
    for file in choice.gguf:
        theirs = map(str, (file, choice.llama_slots, choice.threads, WINDOW))
        found[f"llama.cpp, {file.stem}"] = [sys.executable, "-c", LLAMA, *theirs]
    return found


def measured(choice: argparse.Namespace) -> dict[tuple[str, int], list[Round]]:
    """Rounds by side and number of clients; the servers in turn, each round's first request thrown away."""
    found: dict[tuple[str, int], list[Round]] = {}
    for number in range(choice.rounds):
        for side, command in commands(choice).items():
            with server(command, choice.threads) as url:
                asyncio.run(one_round(url, "it", 1, 8, 10_000))
                for clients in choice.clients:
                    one = asyncio.run(one_round(url, "it", clients, choice.tokens, number * 1000))
                    found.setdefault((side, clients), []).append(one)
                    print(f"{side}, {clients} clients: {one.tokens / one.seconds:.1f} tokens/s", file=sys.stderr)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("gguf", type=Path, nargs="+")
    parser.add_argument("--clients", nargs="+", type=int, default=[1, 4, 16])
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--slots", type=int, default=16, help="answers side by side in smolt serve")
    parser.add_argument("--llama-slots", type=int, default=16, help="the same in llama.cpp's server")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--dtype", nargs="+", default=["fp32"])
    choice = parser.parse_args()
    if installed("xllamacpp") is None:
        sys.exit("xllamacpp is not installed")
    if missing := [str(file) for file in choice.gguf if not file.is_file()]:
        sys.exit(f"{missing[0]}: is no file")
    found = measured(choice)
    slots = f"slots {choice.slots} and {choice.llama_slots}"
    print(f"{processor()}, {choice.threads} threads, {slots}, xllamacpp {installed('xllamacpp')}\n")
    print("| clients | server | tokens/s | first piece, s | tokens |\n|---|---|---|---|---|")
    for clients in choice.clients:
        for side in commands(choice):
            rounds = found[side, clients]
            speeds = [one.tokens / one.seconds for one in rounds]
            speed = f"{median(speeds):.1f} ({min(speeds):.1f} to {max(speeds):.1f})"
            first, tokens = median(one.first for one in rounds), median(one.tokens for one in rounds)
            print(f"| {clients} | {side} | {speed} | {first:.2f} | {tokens:.0f} |")


if __name__ == "__main__":
    main()
