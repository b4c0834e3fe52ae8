"""Every public file of shared/data: how it is read, how many records it gives, and who speaks in them."""

from collections import Counter

import pytest

from smolt.data import Context, Kind, Source, load
from smolt.errors import UserError
from tests.shared import shared_path

COUNTS: list[tuple[str, Kind, str, int]] = [
    ("gsm8k/train.jsonl", "questions", "gsm8k", 7473),
    ("gsm8k/test.jsonl", "demonstrations", "gsm8k", 1319),
    ("svamp/SVAMP.json", "questions", "svamp", 1000),
    ("hh/harmless-base-test.jsonl.gz", "preferences", "hh", 2312),
    ("hh/harmless_test_pairs.jsonl", "preferences", "hh_prompt", 2303),
    ("hh/harmless_test_pairs.jsonl", "demonstrations", "hh_prompt", 2303),
    ("oasst/ranked_pairs.jsonl", "preferences", "oasst", 754),
    ("ultrafeedback/train_clean.jsonl", "preferences", "preference", 1000),
    ("ultrafeedback/eval_clean.jsonl", "questions", "preference", 200),
    ("sharegpt/dpo_en_demo.json", "preferences", "sharegpt_preference", 300),
    ("sharegpt/alpaca_en_demo.json", "demonstrations", "alpaca", 999),
    ("selfinstruct/seed_tasks.jsonl", "demonstrations", "self_instruct", 175),
    ("selfinstruct/seed_tasks.jsonl", "questions", "self_instruct", 175),
    ("mtbench/question.jsonl", "questions", "mt_bench", 80),
    ("xstest/xstest_prompts.csv", "questions", "xstest", 450),
    ("text/tinyshakespeare.txt", "text", "text", 1),
    ("text/wiki_demo.txt", "text", "text", 1),
    ("text/wizard_of_oz.txt", "demonstrations", "text", 1),
]


def source(name: str) -> Source:
    return Source(str(shared_path(f"data/{name}")))


def roles(contexts: list[Context]) -> Counter[str]:
    return Counter(turn.role for context in contexts for turn in context)


@pytest.mark.parametrize(("name", "kind", "form", "count"), COUNTS)
def test_counts(name: str, kind: Kind, form: str, count: int) -> None:
    """The format is found and every row is read: 0 skipped."""
    loaded = load(source(name), kind)
    assert (loaded.format, len(loaded.records), loaded.skipped) == (form, count, [])


def test_gsm8k_solutions_are_numbers_and_annotations_are_gone() -> None:
    """The first solution is 72; all 7,473 are numbers; 0 answers keep << or >>; all keep their #### line."""
    questions = load(source("gsm8k/train.jsonl"), "questions").records
    demonstrations = load(source("gsm8k/train.jsonl"), "demonstrations").records
    assert (questions[0].solution, questions[0].id) == ("72", "train:1")
    assert sum((q.solution or "").replace(",", "").lstrip("-").replace(".", "", 1).isdigit() for q in questions) == 7473
    assert sum("<<" in d.answer or ">>" in d.answer for d in demonstrations) == 0
    assert sum("\n#### " in d.answer for d in demonstrations) == 7473
    assert demonstrations[0].answer.startswith("Natalia sold 48/2 = 24 clips in May.\n")


def test_svamp() -> None:
    """Item chal-1: 76 - 25 = 51, the sentence joined with a comma; the kinds are the four operations."""
    questions = load(source("svamp/SVAMP.json"), "questions").records
    assert (questions[0].id, questions[0].solution) == ("chal-1", "51")
    assert "on each pack, How much do you have" in questions[0].context[0].content
    assert {question.kind for question in questions} >= {"Addition", "Subtraction", "Multiplication"}
    assert all("." not in (question.solution or "") for question in questions)


def test_hh_dialogues_equal_the_derived_pairs() -> None:
    """The 2,303 derived pairs are among the 2,312 of the dialogues; the 4 empty answers are remarked, with lines."""
    whole = load(source("hh/harmless-base-test.jsonl.gz"), "preferences")
    pairs = load(source("hh/harmless_test_pairs.jsonl"), "preferences")
    assert len(set(whole.records)) == 2312
    assert set(pairs.records) - set(whole.records) == set()
    assert whole.remarks == ["4 pairs with an empty answer (lines 87, 517, 926, 1104)"]
    assert pairs.remarks == []


def test_hh_contexts_alternate_and_end_with_the_user() -> None:
    """In 2,303 contexts the roles go user, assistant, user, ...; 0 speaker marks are left in any turn's beginning."""
    contexts = [pair.context for pair in load(source("hh/harmless_test_pairs.jsonl"), "preferences").records]
    expected = ("user", "assistant")
    assert all(turn.role == expected[index % 2] for context in contexts for index, turn in enumerate(context))
    assert all(context[-1].role == "user" for context in contexts)
    assert not any(turn.content.startswith(("Human:", "\n\n")) for context in contexts for turn in context[:1])


def test_hh_empty_answers_are_no_demonstrations() -> None:
    """Of the 4 pairs with an empty side, those with the chosen one are bad as demonstrations: 2,308 are left."""
    raw = source("hh/harmless-base-test.jsonl.gz")
    with pytest.raises(UserError, match=r"gz:87: chosen: is empty: it cannot be a demonstration; 3 more bad rows"):
        load(raw, "demonstrations")
    loaded = load(Source(raw.path, skip_bad=True), "demonstrations")
    assert (len(loaded.records), len(loaded.skipped)) == (2308, 4)


def test_oasst_roles() -> None:
    """1,074 prompter turns are the user's, 320 the assistant's; the longer answer is chosen in 70 %."""
    pairs = load(source("oasst/ranked_pairs.jsonl"), "preferences").records
    assert roles([pair.context for pair in pairs]) == {"user": 1074, "assistant": 320}
    assert sum(len(pair.chosen) > len(pair.rejected) for pair in pairs) / 754 == pytest.approx(0.70, abs=0.01)


def test_sharegpt_roles() -> None:
    """563 human turns, 263 of gpt and 80 of the system, as in the file."""
    pairs = load(source("sharegpt/dpo_en_demo.json"), "preferences").records
    assert roles([pair.context for pair in pairs]) == {"user": 563, "assistant": 263, "system": 80}


def test_ultrafeedback_remarks() -> None:
    """4 of 1,000 pairs have equal answers and 2 an empty one."""
    assert load(source("ultrafeedback/train_clean.jsonl"), "preferences").remarks == [
        "4 pairs whose two answers are the same (lines 307, 656, 911, 998)",
        "2 pairs with an empty answer (lines 479, 834)",
    ]


def test_alpaca_inputs_follow_the_instruction() -> None:
    """412 of 999 rows have an input; each is a second paragraph of the one user turn."""
    demonstrations = load(source("sharegpt/alpaca_en_demo.json"), "demonstrations").records
    assert roles([one.context for one in demonstrations]) == {"user": 999}
    assert sum("\n\n" in one.context[0].content for one in demonstrations) >= 412


def test_xstest_and_mt_bench_groups() -> None:
    """18 types of 25 prompts, 250 labelled safe; 8 categories of 10 questions."""
    prompts = load(source("xstest/xstest_prompts.csv"), "questions").records
    assert Counter(Counter(prompt.kind for prompt in prompts).values()) == {25: 18}
    assert Counter(prompt.solution for prompt in prompts) == {"safe": 250, "unsafe": 200}
    questions = load(source("mtbench/question.jsonl"), "questions").records
    assert Counter(Counter(question.kind for question in questions).values()) == {10: 8}
    assert questions[0].id == "81"


def test_text_is_whole() -> None:
    """The text files are one document each, to the last character but outer white space."""
    path = shared_path("data/text/tinyshakespeare.txt")
    assert load(Source(str(path)), "text").records == [path.read_text(encoding="utf-8").strip()]
