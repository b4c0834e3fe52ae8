"""Rubrics: those that are shipped, files of one's own, and what is wrong with one."""

from pathlib import Path

import pytest

from smolt.errors import UserError
from smolt.rewards.llm_judge.rubrics import Rubric, load_rubric, rubric_names


def test_the_shipped_ones() -> None:
    """Six, each under its own name, with questions that end as questions."""
    assert rubric_names() == ["constitution", "empathetic", "harmless", "helpful", "honest", "maths"]
    for name in rubric_names():
        rubric = load_rubric(name)
        assert rubric.name == name and rubric.version >= 1
        assert rubric.pairwise.endswith("?") and rubric.pointwise.endswith("?") and "10" in rubric.pointwise


def test_a_constitution_draws_one_principle_by_content() -> None:
    """The same showing always sees the same principle; over 64 showings all eight are seen."""
    rubric = load_rubric("constitution")
    drawn = [rubric.chosen(f"{number:06x}") for number in range(64)]
    assert all(len(one) == 1 for one in drawn) and len(set(drawn)) == len(rubric.principles) == 8
    assert rubric.chosen("00002a") == drawn[42]


def test_every_word_is_part_of_the_identity() -> None:
    one = Rubric("r", 1, "Which?", "How, to 10?", ("a",))
    others = [Rubric("r", 2, "Which?", "How, to 10?", ("a",)), Rubric("r", 1, "Which?", "How, to 10?", ("b",))]
    assert len({rubric.identity for rubric in (one, *others)}) == 3


def test_a_text_file_holds_principles(tmp_path: Path) -> None:
    path = tmp_path / "own.txt"
    path.write_text("Be kind.\n\n  Be brief. \n")
    rubric = load_rubric(str(path))
    assert (rubric.name, rubric.principles) == ("own", ("Be kind.", "Be brief."))


def test_a_yaml_file(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(
        "name: own\nversion: 3\npairwise: Which?\npointwise: How good, from 1 to 10?\nprinciples: [Be kind.]\n"
    )
    assert load_rubric(str(path)) == Rubric("own", 3, "Which?", "How good, from 1 to 10?", ("Be kind.",))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("name: x\nversion: 1\npairwise: W?\n", "pointwise: is missing"),
        ("name: x\nversoin: 1\n", 'versoin: unknown field; did you mean "version"?'),
        ("name: x\nversion: one\n", "version: must be a whole number"),
        (
            "name: x\nversion: 1\npairwise: W?\npointwise: H?\nprinciples: [1]\n",
            "principles: must be a list of sentences",
        ),
        ("name: x\nversion: 1\npairwise: W?\npointwise: H?\ndraw: -1\n", "draw: must be 0"),
        ("name: x\nversion: 1\npairwise: W?\npointwise: H?\ndraw: 2\n", "draw: must be 0 (all) to 0, the number of"),
        ("name: x\nversion: 1\npairwise: ' '\npointwise: H?\n", "pairwise: is empty"),
        ("- a\n", "must be a mapping"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        load_rubric(str(path))
    assert str(caught.value).startswith(str(path)) and reason in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("own.txt", b"Be g\xf6od.", "own.txt: is not UTF-8; save the file as UTF-8"),
        ("own.txt", b" \n", "own.txt: holds no principle; write one on each line"),
        ("own.json", b"{}", "own.json: is no rubric; it must be a .yaml file, or a .txt file"),
        ("own.yaml", b"name: [", "own.yaml:1: not valid YAML"),
        ("own.yaml", b"\xff", "own.yaml:1: not UTF-8 text (byte 0xff); save the file as UTF-8"),
    ],
)
def test_files_that_are_no_rubric(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as caught:
        load_rubric(str(tmp_path / name))
    assert reason in str(caught.value)


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(UserError, match=r"rubric: 'harmles' is neither a file nor one of the shipped; did you mean"):
        load_rubric("harmles")
