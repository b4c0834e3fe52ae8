"""`smolt eval`: numbers by hand, by transformers and by a direct computation; stopped, sharded and continued."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
from typer.testing import CliRunner

import smolt
from smolt.cli import app
from smolt.data import Demonstration, Preference, Question, Turn
from smolt.data.problems import generate
from smolt.errors import UserError
from smolt.evaluation.comparing.paired import circumstances, differing
from smolt.evaluation.evaluate import evaluate
from smolt.evaluation.measures import answer_measures, majority, powers
from smolt.models.rendering import load_renderer
from smolt.runs.rated_answers import RatedAnswer, read_rated
from smolt.statistics import wilson
from tests.shared import shared_path
from tests.tiny import WINDOW, tiny_model

QUESTIONS = 10
MEASURE_KEYS = {"value", "low", "high", "n", "source", "rate"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model in `m` and ten questions with solutions in `questions.jsonl`."""
    folder = tmp_path_factory.mktemp("evaluation")
    tiny_model(folder / "m")
    rows = [{"id": f"q{n}", "question": f"question {n}", "answer": f"#### {n}"} for n in range(QUESTIONS)]
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def run(place: Path, out: Path | None, **more: Any) -> Any:
    """Ten questions, two answers each, in chunks of four (4 refills of 2 slots, 2 answers a question)."""
    settings = {"task": "gsm8k", "samples": 2, "temperature": 1.0, "batch": 2, "max_tokens": 6, "dtype": "fp32"}
    return evaluate(place / "m", place / "questions.jsonl", out=out, **{**settings, "device": "cpu", **more})


def item(question: int, answer: str, solution: str, correct: bool) -> RatedAnswer:
    return RatedAnswer(f"q{question}", "", "", answer, 5, True, correct, reference_solution=solution)


def ask(text: str) -> tuple[Turn, ...]:
    return (Turn("user", text),)


def test_greedy_in_bf16_keeps_its_batch_size(place: Path, tmp_path: Path) -> None:
    """In bf16 a greedy answer depends on what is decoded beside it: the batch is recorded, and not another one's."""
    greedy = {"samples": 1, "temperature": 0.0, "dtype": "bf16"}
    run(place, tmp_path / "out", batch=3, **greedy)
    recipe = json.loads((tmp_path / "out" / "manifest.json").read_text())["recipe"]
    assert (recipe["sampling"]["batch"], recipe["sampling"]["temperature"], recipe["model"]["dtype"]) == (
        3,
        0.0,
        "bf16",
    )
    with pytest.raises(UserError, match="batch"):
        run(place, tmp_path / "out", batch=4, **greedy)


def test_a_majority_of_answers() -> None:
    """2 of 3 say 4; two say each: 1/2; nobody says a number: wrong; 4 and 4.0 are one vote against 5."""
    four = Fraction(4)
    assert majority(["#### 4", "it is 4", "#### 5"], four) == 1.0
    assert majority(["#### 5", "it is 5", "#### 4"], four) == 0.0
    assert majority(["#### 4", "#### 5"], four) == 0.5
    assert majority(["#### 4", "#### 5", "#### 6"], four) == pytest.approx(1 / 3)
    assert majority(["none", ""], four) == 0.0
    assert majority(["none", "none", "#### 4"], four) == 1.0
    assert majority(["4", "#### 4.0", "#### 5"], four) == 1.0


def test_pass_and_majority_on_hand_made_answers() -> None:
    r"""Two questions, four answers each: 1 and 4 are right.

    pass@1 = (1/4 + 1)/2 = 0.625; pass@2 = (1 - C(3,2)/C(4,2) + 1)/2 = (0.5 + 1)/2 = 0.75; pass@4 = 1.
    maj@2 of "7, 3": a tie of the right 7 with 3, 1/2; of "9, 9": 1; mean 0.75. maj@4 of "7, 3, 3, -": 0; of four 9: 1.
    The last answer to the first question holds no number: extracted 7/8. `\boxed` stands in 2 of 8.
    """
    items = [item(1, text, "7", text == "#### 7") for text in ("#### 7", "\\boxed{3}", "#### 3", "no idea")]
    items += [item(2, text, "9", True) for text in ("#### 9", "\\boxed{9}", "9", "Therefore 9")]
    found = answer_measures(items, 4)
    values = {name: measure.value for name, measure in found.items()}
    assert values["pass@1"] == 0.625
    assert (values["pass@2"], values["pass@4"]) == (0.75, 1.0)
    assert (values["maj@2"], values["maj@4"]) == (0.75, 0.5)
    assert values["extracted"] == 7 / 8
    assert (values["format/boxed"], values["format/therefore"], values["format/long"]) == (2 / 8, 1 / 8, 0.0)
    assert [found[name].n for name in ("pass@1", "maj@2", "extracted")] == [2, 2, 8]
    low, high = wilson(2, 2)
    assert (found["pass@4"].low, found["pass@4"].high) == (low, high)  # not the bootstrap's 1.0 to 1.0


def test_how_it_was_measured_can_be_read_beside_its_rows(place: Path, tmp_path: Path) -> None:
    """What `smolt compare` warns of: the same call in another length differs in that, and in nothing else."""
    for name, more in (("six", {}), ("five", {"max_tokens": 5})):
        run(place, tmp_path / name, limit=2, **more)
    six, five = (circumstances(tmp_path / name / "evaluation.jsonl") for name in ("six", "five"))
    assert (six["temperature"], six["samples"], six["task"]) == (1.0, 2, "gsm8k")
    assert differing(six, five) == ["max_tokens 6 and 5"]
    for dtype, words in (("bf16", ["batch 2 and 1"]), ("fp32", [])):  # in bf16 an answer depends on those beside it
        for batch in (2, 1):
            run(place, tmp_path / f"{dtype}-{batch}", limit=2, batch=batch, dtype=dtype)
        two, one = (circumstances(tmp_path / f"{dtype}-{batch}" / "evaluation.jsonl") for batch in (2, 1))
        assert (two["dtype"], differing(two, one)) == (dtype, words)


def test_one_answer_has_no_pass_at_k() -> None:
    assert [powers(n) for n in (1, 2, 4, 6)] == [[], [1, 2], [1, 2, 4], [1, 2, 4, 6]]
    found = answer_measures([item(1, "#### 7", "7", True)], 1)
    assert not [name for name in found if "@" in name]


def own_logprob(model: Any, context: list[int], answer: list[int]) -> float:
    """The summed log-probability of an answer by transformers' forward alone."""
    with torch.no_grad():
        logits = model(torch.tensor([context + answer])).logits[0].double()
    rows = torch.log_softmax(logits, dim=-1)[len(context) - 1 : -1]
    return float(rows.gather(1, torch.tensor(answer)[:, None]).sum())


def test_the_loss_is_transformers_own(place: Path) -> None:
    """Labels -100 on the context: the mean loss over all answer tokens of two demonstrations, to 1e-6."""
    shown = [Demonstration(ask("What is 3 + 4?"), "3 + 4 = 7"), Demonstration(ask("Hi."), "Hello there.")]
    renderer, model = load_renderer(place / "m"), AutoModelForCausalLM.from_pretrained(place / "m")
    total, tokens = 0.0, 0
    for one in shown:
        context, answer = renderer.context(one.context), renderer.answer(one.answer)
        labels = torch.tensor([[-100] * len(context) + answer])
        with torch.no_grad():
            total += float(model(torch.tensor([context + answer]), labels=labels).loss) * len(answer)
        tokens += len(answer)
    found = evaluate(place / "m", shown, task="loss", device="cpu", dtype="fp32").measures
    assert found["loss"].value == pytest.approx(total / tokens, abs=1e-6)
    assert found["perplexity"].value == pytest.approx(math.exp(total / tokens), rel=1e-6)
    written = sum(len(one.answer) for one in shown)
    assert found["bits_per_byte"].value == pytest.approx(total / math.log(2) / written, rel=1e-6)
    assert (found["loss"].n, found["length"].value) == (2, tokens / 2)


def test_a_long_text_is_measured_in_pieces(place: Path) -> None:
    """300 bytes and the stop token in windows of 128 with a start token: 127 + 127 + 47 tokens, each piece alone."""
    text = "xyz" * 100
    renderer, model = load_renderer(place / "m"), AutoModelForCausalLM.from_pretrained(place / "m")
    tokens, start, size = renderer.answer(text), renderer.context(()), WINDOW - 1
    pieces = [tokens[at : at + size] for at in range(0, len(tokens), size)]
    assert [len(piece) for piece in pieces] == [127, 127, 47]
    wanted = sum(own_logprob(model, start, piece) for piece in pieces)
    found = evaluate(place / "m", [Demonstration((), text)], task="loss", device="cpu", dtype="fp32")
    assert found.measures["loss"].value == pytest.approx(-wanted / len(tokens), abs=1e-6)
    assert found.measures["loss"].n == 3
    assert "texts that exceed the window of 128 tokens were cut" in found.notes[0]
    assert sum(row["bytes"] for row in found.rows) == pytest.approx(300)


PAIRS = [
    Preference(ask("question 1"), "good", "a rather longer answer"),
    Preference(ask("question 1"), "another one that is long", "bad"),
    Preference(ask("question 2"), "same", "same"),
    Preference(ask("question 3"), "worse", "better by its weight", weight=0.2),
    Preference(ask("question 4"), "undecided", "either", weight=0.5),
]


def test_pairs_by_log_probability(place: Path) -> None:
    """Sums and per-token means as transformers has them; weight 0.2 turns a pair round, 0.5 leaves it out."""
    found = evaluate(place / "m", PAIRS, task="preferences", device="cpu", dtype="fp32")
    renderer, model = load_renderer(place / "m"), AutoModelForCausalLM.from_pretrained(place / "m")
    sums, means = [], []
    for pair in [*PAIRS[:3], Preference(PAIRS[3].context, PAIRS[3].rejected, PAIRS[3].chosen)]:
        context = renderer.context(pair.context)
        answers = [renderer.answer(text) for text in (pair.chosen, pair.rejected)]
        chosen, rejected = (own_logprob(model, context, answer) for answer in answers)
        sums.append(chosen - rejected)
        means.append(chosen / len(answers[0]) - rejected / len(answers[1]))
    assert [row["score"] for row in found.rows] == pytest.approx(sums, abs=1e-4)
    assert found.measures["margin"].value == pytest.approx(sum(sums) / 4, abs=1e-4)
    assert found.measures["margin_per_token"].value == pytest.approx(sum(means) / 4, abs=1e-5)
    assert found.measures["accuracy"].value == sum(value > 0 for value in sums) / 4
    assert found.measures["accuracy_per_token"].value == sum(value > 0 for value in means) / 4
    assert found.measures["ties"].value == 0.25
    assert found.measures["longer_chosen"].value == 0.5
    assert found.measures["accuracy"].source.startswith("bootstrap by question")  # two pairs share a context
    assert found.notes == ["1 pairs of weight 0.5 were left out: they say that neither answer is better"]
    assert [row["question_id"] for row in found.rows] == [f"pair:{n}" for n in (1, 2, 3, 4)]


def test_pairs_by_a_reward_model(place: Path, tmp_path: Path) -> None:
    """transformers' own classifier on each answer alone gives the same verdicts; no per-token figures."""
    tiny_model(tmp_path / "rm")
    classifier = AutoModelForSequenceClassification.from_pretrained(tmp_path / "rm", num_labels=1)
    torch.nn.init.normal_(classifier.score.weight, generator=torch.Generator().manual_seed(0))
    classifier.save_pretrained(tmp_path / "rm")
    renderer = load_renderer(tmp_path / "rm")

    def verdict(pair: Preference, text: str) -> float:
        ids = renderer.context(pair.context) + renderer.answer(text)
        with torch.no_grad():
            return float(classifier(torch.tensor([ids])).logits[0, 0])

    found = evaluate(tmp_path / "rm", PAIRS[:3], task="preferences", device="cpu", dtype="fp32")
    wanted = [verdict(pair, pair.chosen) - verdict(pair, pair.rejected) for pair in PAIRS[:3]]
    assert [row["score"] for row in found.rows] == pytest.approx(wanted, abs=1e-4)
    assert found.measures["accuracy"].value == sum(row["correct"] for row in found.rows) / 3
    assert "accuracy_per_token" not in found.measures


FILES = ("evaluation.jsonl", "result.json", "manifest.json", "record.json", "report.json", "report.html")


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in FILES}


def test_shards_together_are_the_whole(place: Path, tmp_path: Path) -> None:
    """Three shards of one chunk each give, put together, byte for byte what one go gives."""
    whole = run(place, tmp_path / "whole")
    for shard in ("3/3", "1/3"):
        run(place, tmp_path / "out", shard=shard)
    with pytest.raises(UserError, match=r"out: shard 2/3 not finished: run this command with --shard 2/3"):
        run(place, tmp_path / "out")
    assert run(place, tmp_path / "out", shard="2/3").path == tmp_path / "out.shard-2-of-3"
    parts = [read_rated(tmp_path / f"out.shard-{n}-of-3" / "evaluation.jsonl") for n in (1, 2, 3)]
    assert [len(part) for part in parts] == [8, 8, 4]
    with pytest.raises(UserError, match=r"recipe.seed: 0 in this run, 1 now"):
        run(place, tmp_path / "out", seed=1)
    assert not (tmp_path / "out").exists()
    gathered = run(place, tmp_path / "out")
    assert gathered.measures == whole.measures and len(gathered.rows) == 20
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert run(place, tmp_path / "out").status == "already complete"


def test_shards_that_cannot_be(place: Path, tmp_path: Path) -> None:
    """Ten questions are three chunks of four: no fourth shard; a shard needs a place; 5/4 and 0/2 are none."""
    with pytest.raises(UserError, match=r"shard: 1/4: 10 records are 3 chunks of 4, .* at most 3 shards"):
        run(place, tmp_path / "out", shard="1/4")
    with pytest.raises(UserError, match="shard: needs --out"):
        run(place, None, shard="1/2")
    for text in ("5/4", "0/2", "1", "a/b"):
        with pytest.raises(UserError, match="is not of the form 2/4"):
            run(place, tmp_path / "out", shard=text)
    assert not any(tmp_path.iterdir())


def test_a_killed_evaluation_continues(place: Path, tmp_path: Path) -> None:
    """SIGKILL after the first chunk; the same call then does only the rest, and every file is as if never killed."""
    rows = [{"id": f"q{n}", "question": f"question {n}", "answer": f"#### {n}"} for n in range(20)]
    (tmp_path / "many.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [sys.executable, "-m", "smolt", "eval", str(place / "m"), str(tmp_path / "many.jsonl")]
    command += ["--task", "gsm8k", "--max-tokens", "20", "--batch", "1", "--dtype", "fp32", "--device", "cpu"]
    killed = subprocess.Popen(
        [*command, "--out", str(tmp_path / "out")],
        env={**os.environ, "PYTHONPATH": str(Path(smolt.__file__).parents[1])},
    )
    try:
        checkpoints = tmp_path / "out" / "checkpoints"
        while killed.poll() is None and not list(checkpoints.glob("step-*")):
            time.sleep(0.005)
    finally:
        killed.send_signal(signal.SIGKILL)
        killed.wait()
    assert not (tmp_path / "out" / "result.json").exists()
    done: list[tuple[int, int]] = []
    settings: dict[str, Any] = {"task": "gsm8k", "max_tokens": 20, "batch": 1, "dtype": "fp32", "device": "cpu"}
    again = evaluate(
        str(place / "m"),
        str(tmp_path / "many.jsonl"),
        out=tmp_path / "out",
        progress=lambda *told: done.append(told),
        **settings,
    )
    assert again.status == "complete" and 1 < len(done) < 6 and done[0][0] > 0  # told where it goes on, too
    evaluate(str(place / "m"), str(tmp_path / "many.jsonl"), out=tmp_path / "whole", **settings)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_other_conditions_are_refused_by_name(place: Path, tmp_path: Path) -> None:
    """Length, and a template that renders otherwise, are named with both values; nothing is written over."""
    run(place, tmp_path / "out")
    before = contents(tmp_path / "out")
    with pytest.raises(UserError, match=r"recipe.conditions.max_tokens: 6 in this run, 7 now"):
        run(place, tmp_path / "out", max_tokens=7)
    assert contents(tmp_path / "out") == before
    manifest = json.loads(before["manifest.json"])
    renderer = load_renderer(place / "m")
    assert manifest["recipe"]["conditions"] == {
        "template": renderer.fingerprint,
        "style": "chat",
        "stop_ids": sorted(renderer.stop_ids),
        "max_tokens": 6,
        "extractor": "gsm8k-3",
    }


def test_a_run_is_measured_as_it_was_trained(place: Path, tmp_path: Path) -> None:
    """GRPO with 5 tokens: 5 are the default; 9 are measured, with a note that says both numbers."""
    training = smolt.grpo(
        place / "m",
        [Question(ask("a"), "1"), Question(ask("b"), "2")],
        reward=lambda question, answer: len(answer.text) % 7,
        out=tmp_path / "run",
        group=4,
        prompts=2,
        sampling={"max_tokens": 5},
        budget={"updates": 1},
    )
    training.finish()
    found = evaluate(tmp_path / "run", place / "questions.jsonl", task="gsm8k", limit=2, device="cpu", dtype="fp32")
    assert {row["tokens"] for row in found.rows} == {5} and "100% of 2 answers were cut" in found.notes[0]
    found = evaluate(tmp_path / "run", place / "questions.jsonl", task="gsm8k", limit=2, max_tokens=9, device="cpu")
    assert found.notes[0].startswith("max_tokens: 5 in training, 9 here: measured under other conditions than it was")


def test_the_command_prints_one_object(place: Path, tmp_path: Path) -> None:
    """Every measure has value, low, high, n; the table has them too; rows carry what `smolt compare` pairs by."""
    words = ["eval", str(place / "m"), str(place / "questions.jsonl"), "--task", "gsm8k", "--reward", "format"]
    words += ["--max-tokens", "4", "--limit", "3", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, [*words, "--json"])
    found = json.loads(done.stdout)
    own = {"task", "status", "too_long", "notes", "out"}
    assert done.exit_code == 0 and own < set(found)
    assert all(set(found[name]) == MEASURE_KEYS for name in set(found) - own)
    assert {"accuracy", "reward/format", "stop_rate", "length", "extracted", "format/boxed"} <= set(found)
    assert (found["accuracy"]["n"], found["status"]) == (3, "complete")
    again = CliRunner().invoke(app, words)
    assert again.stdout.startswith(f"already complete; it is in {tmp_path / 'out'}\n")
    assert " accuracy  " in again.stdout and "95 % interval" in again.stdout
    rows = [json.loads(line) for line in (tmp_path / "out" / "evaluation.jsonl").read_text().splitlines()]
    assert [(row["question_id"], row["correct"]) for row in rows] == [(f"q{n}", False) for n in range(3)]


def test_generated_problems_are_the_test_split(place: Path) -> None:
    """The first three of seed 7, with the ids that a study's files have."""
    found = evaluate(place / "m", task="problems", limit=3, data_seed=7, max_tokens=2, device="cpu")
    wanted = generate(7, 3, "test")
    assert [row["question"] for row in found.rows] == [problem.question for problem in wanted]
    assert [row["reference_solution"] for row in found.rows] == [problem.solution for problem in wanted]
    assert [row["question_id"] for row in found.rows] == ["test-00000", "test-00001", "test-00002"]


def test_public_questions(place: Path) -> None:
    """Real rows of GSM8K and SVAMP: recognised by their columns, with their official answers."""
    gsm8k, svamp = shared_path("data/gsm8k/test.jsonl"), shared_path("data/svamp/SVAMP.json")
    settings: dict[str, Any] = {"limit": 2, "max_tokens": 2, "too_long": "drop", "device": "cpu"}
    found = evaluate(shared_path("models/stories260k"), gsm8k, task="gsm8k", **settings)
    assert [row["reference_solution"] for row in found.rows] == ["18", "3"]
    found = evaluate(shared_path("models/stories260k"), svamp, task="svamp", **settings)
    assert [row["reference_solution"] for row in found.rows] == [
        str(row["Answer"]).removesuffix(".0") for row in json.loads(svamp.read_text())[:2]
    ]


def test_wrong_requests_say_what_to_do(place: Path, tmp_path: Path) -> None:
    """Each mistake in words, before any directory is made."""
    questions = place / "questions.jsonl"
    plain = tmp_path / "plain.jsonl"
    plain.write_text('{"prompt": "Tell me a story."}\n')
    for message, data, more in (
        ("task: 'gsm8' is unknown; did you mean gsm8k?", questions, {"task": "gsm8"}),
        ("data: the task answers needs some", None, {"task": "answers"}),
        ("task problems: makes its own data", questions, {"task": "problems"}),
        ("none of the 1 questions has a number as its solution", plain, {"task": "gsm8k", "max_tokens": 4}),
        ("gives questions, text but no preferences", plain, {"task": "preferences"}),
        ("reward: the task loss rates nothing", questions, {"task": "loss", "reward": "gsm8k"}),
        ("the task loss samples no answers", questions, {"task": "loss", "max_tokens": 4}),
        ("2 greedy answers to a question are all the same", questions, {"samples": 2}),
        ("fresh: needs --out", questions, {"fresh": True, "max_tokens": 4}),
        ("all 1 pairs have weight 0.5", PAIRS[4:], {"task": "preferences"}),
    ):
        with pytest.raises(UserError, match=re.escape(message)):
            evaluate(place / "m", data, device="cpu", **more)
    assert [path.name for path in tmp_path.iterdir()] == ["plain.jsonl"]


def test_a_reward_in_python(place: Path) -> None:
    """A function rates each answer; without any rater a note says so."""
    found = smolt.evaluate(
        place / "m", ["One?", "Two?"], reward=lambda question, answer: answer.tokens, max_tokens=3, device="cpu"
    )
    assert found.measures["reward"].value == found.measures["length"].value
    found = smolt.evaluate(place / "m", ["One?"], max_tokens=3, device="cpu")
    assert found.notes[0] == "nobody rated the answers: name a task with a verifier (gsm8k), or a reward"
    assert "accuracy" not in found.measures
