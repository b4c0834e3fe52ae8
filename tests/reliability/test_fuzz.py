"""Broken recipes, overrides, rows and replies: what they hold, or an error that names the place; and soon."""

import copy
import csv
import json
import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from smolt.config import load_recipe, shipped_recipes
from smolt.data import Kind, Source, load
from smolt.errors import UserError
from smolt.rewards.llm_judge.prompts import GRADES, LETTERS, Prompt
from smolt.rewards.llm_judge.replies import Malformed, read_reply
from tests.soak import amount, tell

SECONDS = 10
PROMISE = "broken input: an error that names the place, or what it holds"
QUICK = 60

ODD: tuple[Any, ...] = (
    *(None, True, -1, 0, 1, 2**63, 10**30, 0.5, float("nan"), float("inf"), -1e308),
    *("", " ", "x" * 5000, "\x1b[31m", "\u202e\u0000", "\ud800", "{nowhere}", "../..", "1e999", "null", "[1, 2", "yes"),
    *([], {}, [None], {"": None}, {"path": 3}, [[[[]]]], {"a": {"b": {"c": []}}}, [{"role": "user"}], ["a"] * 300),
)
ROWS: tuple[dict[str, Any], ...] = (
    {"prompt": "What?", "chosen": "This.", "rejected": "That.", "weight": 0.7, "kind": "k"},
    {"prompt": "What?", "completion": "This.", "id": "a"},
    {"instruction": "Say.", "input": "", "output": "Said.", "history": [["a", "b"]]},
    {"question": "1 + 1?", "answer": "so 2\n#### 2"},
    {"messages": [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Ho."}]},
    {
        "conversations": [{"from": "human", "value": "Hi."}],
        "chosen": {"from": "gpt", "value": "Ho."},
        "rejected": {"from": "gpt", "value": "No."},
    },
    {"chosen": "\n\nHuman: Hi.\n\nAssistant: Ho.", "rejected": "\n\nHuman: Hi.\n\nAssistant: No."},
    {"text": "Once upon a time."},
)
REPLIES: tuple[Any, ...] = (
    {
        "choices": [
            {
                "message": {"role": "assistant", "content": "A"},
                "logprobs": {
                    "content": [{"token": "A", "logprob": -0.1, "top_logprobs": [{"token": "B", "logprob": -3}]}]
                },
            }
        ],
        "usage": {"prompt_tokens": 10, "completion_tokens": 1},
    },
    {"choices": [{"text": "7", "message": {"content": "7"}}], "error": {"message": "busy"}},
)


@contextmanager
def soon() -> Iterator[None]:
    """Fails where what is inside takes longer than SECONDS."""

    def late(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"it took more than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container of a document with each of its keys or indices."""
    pairs = (
        list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    )
    for key, inner in pairs:
        yield value, key
        yield from places(inner)


def broken(document: Any, draw: random.Random) -> Any:
    """A copy in which one to three values are odd, missing, misspelt or doubled."""
    document = copy.deepcopy(document)
    for _ in range(draw.randint(1, 3)):
        found = list(places(document))
        if not found:
            return copy.deepcopy(draw.choice(ODD))
        container, key = draw.choice(found)
        do = draw.choice(("odd", "odd", "odd", "remove", "rename", "double", "swap"))
        if do == "odd":
            container[key] = copy.deepcopy(draw.choice(ODD))
        elif do == "remove":
            del container[key]
        elif do == "rename" and isinstance(container, dict):
            container[draw.choice((str(key)[:-1], f"{key}x", "", "\x1b", "stage", "path"))] = container.pop(key)
        elif do == "double" and isinstance(container, list):
            container.append(copy.deepcopy(container[key]))
        else:
            other, place = draw.choice(found)
            container[key] = copy.deepcopy(other.get(place) if isinstance(other, dict) else other)
    return document


def broken_text(text: str, draw: random.Random) -> bytes:
    """Bytes of a file: cut, a character changed, a tab, an anchor that grows, bytes that are no text."""
    place = draw.randrange(len(text) + 1)
    do = draw.choice(("whole", "whole", "whole", "cut", "change", "tab", "alias", "bytes", "deep"))
    inserts = {
        "change": draw.choice("{}[]:,\"'#&*!|>%@`\x00\t"),
        "tab": "\n\t",
        "alias": "\na: &a [x]\nb: &b [*a, *a]\nc: [*b, *b, *missing]\n",
        "deep": "[" * 3000,
    }
    if do == "cut":
        return text[:place].encode("utf-8", "surrogatepass")
    if do == "bytes":
        return text[:place].encode("utf-8", "surrogatepass") + b"\xff\xfe\x00" + text[place:].encode("utf-8", "replace")
    return (text[:place] + inserts.get(do, "") + text[place:]).encode("utf-8", "surrogatepass")


def trials(what: str, quick: int, full: int) -> pytest.MarkDecorator:
    """A quick test with few trials, a slow one with many."""
    many = amount(full // 4, full)
    return pytest.mark.parametrize("count", [quick, pytest.param(many, marks=pytest.mark.slow)], ids=[what, f"{what}s"])


def told(what: str, count: int, **counts: int) -> None:
    if count > QUICK:
        tell(PROMISE, what, tried=count, tracebacks=0, hangs=0, **counts)


@trials("recipe", QUICK, 1000)
def test_recipes(count: int, tmp_path: Path) -> None:
    draw, refused = random.Random(1), 0
    shipped = [(path.read_text(), "study") for path in shipped_recipes().values()]
    ppo = "model: {path: m}\ndata: d.jsonl\nreward: gsm8k\nkl: {coefficient: 0.1}\nlora: {rank: 4, targets: [q_proj]}\n"
    path = tmp_path / "recipe.yaml"
    for _ in range(count):
        text, stage = draw.choice([*shipped, *[(ppo, "ppo")] * 4])
        changed = yaml.safe_dump(broken(yaml.safe_load(text), draw), allow_unicode=True)
        path.write_bytes(broken_text(changed, draw))
        with soon():
            try:
                load_recipe(str(path), stage)
            except UserError as problem:
                assert str(path) in str(problem)
                refused += 1
    told("recipes", count, refused=refused)


@trials("override", QUICK, 500)
def test_overrides(count: int, tmp_path: Path) -> None:
    draw, refused = random.Random(2), 0
    path = tmp_path / "recipe.yaml"
    path.write_text("model: {path: m}\ndata: d.jsonl\nreward: gsm8k\n")
    fields = [
        "kl.coefficient",
        "model.path",
        "reward",
        "optim.lr",
        "lora",
        "data",
        "seed",
        "",
        ".",
        "a.b.c.d",
        "kl",
        "=",
        "x",
    ]
    for _ in range(count):
        value = draw.choice(
            [json.dumps(draw.choice(ODD)), str(draw.choice(ODD)), draw.choice(("{", "[1", "&a *a", "!x", "- a: b"))]
        )
        line = broken_text(f"{draw.choice(fields)}={value}", draw).decode("utf-8", "surrogateescape")
        with soon():
            try:
                load_recipe(str(path), "ppo", [line])
            except UserError:
                refused += 1
    told("overrides", count, refused=refused)


def as_jsonl(rows: list[Any], draw: random.Random) -> bytes:
    return b"\n".join(broken_text(json.dumps(row), draw) for row in rows)


def as_csv(rows: list[Any], draw: random.Random, path: Path) -> bytes:
    columns = sorted({str(key) for row in rows if isinstance(row, dict) for key in row}) or ["prompt"]
    with path.open("w", newline="", encoding="utf-8", errors="replace") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for row in rows:
            writer.writerow([row.get(column, "") for column in columns] if isinstance(row, dict) else [row])
    return broken_text(path.read_text(encoding="utf-8", errors="replace"), draw)


def as_parquet(rows: list[Any], path: Path) -> bytes | None:
    """None where the rows make no table: a column of two kinds, say."""
    try:
        pq.write_table(pa.Table.from_pylist([row for row in rows if isinstance(row, dict)]), path)
    except (pa.ArrowException, OverflowError, TypeError, UnicodeEncodeError, AttributeError):
        return None
    return path.read_bytes()


def as_file(ending: str, rows: list[Any], draw: random.Random, path: Path) -> bytes | None:
    if ending == "jsonl":
        return as_jsonl(rows, draw)
    return as_csv(rows, draw, path) if ending == "csv" else as_parquet(rows, path)


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
@trials("row", QUICK, 3000)
def test_rows(count: int, ending: str, tmp_path: Path) -> None:
    draw, path, done, refused, read = random.Random(ending), tmp_path / f"rows.{ending}", 0, 0, 0
    while done < count:
        base = draw.choice(ROWS)
        rows = [broken(base, draw) if draw.random() < 0.6 else base for _ in range(draw.randint(1, 5))]
        content = as_file(ending, rows, draw, path)
        if content is None:
            continue
        done += len(rows)
        path.write_bytes(content)
        kind: Any = draw.choice(get_args(Kind))
        with soon():
            try:
                loaded = load(Source(str(path), skip_bad=draw.random() < 0.5), kind)
                read += len(loaded.records)
            except UserError as problem:
                assert str(path) in str(problem)
                refused += 1
    told(f"rows of {ending}", done, files_refused=refused, records_read=read)


@trials("reply", QUICK, 500)
def test_replies(count: int) -> None:
    draw, malformed = random.Random(4), 0
    for _ in range(count):
        document = broken(draw.choice(REPLIES), draw)
        with soon():
            try:
                read_reply(document, draw.choice((Prompt((), LETTERS), Prompt((), GRADES, exact=True))))
            except Malformed:
                malformed += 1
    told("replies of a judge's server", count, malformed=malformed)
