"""What lines with a slash do in a conversation, and two models that are asked the same."""

import json
from io import StringIO
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from smolt.cli import app
from smolt.cli.chat import converse
from smolt.cli.chat.plain_lines import PlainLines
from smolt.cli.chat.talk import Speaker, Talk, circles, open_speaker
from smolt.config import ChatSampling, Model
from smolt.data import Source, Turn, load
from smolt.models.forward.kernels import kernels
from smolt.models.forward.trunk import Trunk
from smolt.report.inert import visible
from tests.tiny import tiny_model

GREEDY = ChatSampling(max_tokens=8, temperature=0)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Three tiny models: two with a chat template, and one without."""
    folder = tmp_path_factory.mktemp("models")
    made = {"one": (0, True), "other": (1, True), "plain": (0, False)}
    found = {name: str(tiny_model(folder / name, seed=seed, chat=chat)) for name, (seed, chat) in made.items()}
    return {**found, "gpt2": str(tiny_model(folder / "gpt2", "gpt2"))}


def speaker(path: str, system: str | None = None) -> Speaker:
    return open_speaker(Model(path=path, device="cpu"), GREEDY, system)


def session(speakers: list[Speaker], lines: str) -> tuple[str, str]:
    """What stdout and stderr hold after a piped conversation."""
    answers, notices = StringIO(), StringIO()
    converse(Talk(speakers, PlainLines(StringIO(lines)), answers, notices))
    return answers.getvalue(), notices.getvalue()


def test_a_system_message_is_taken_and_shown(models: dict[str, str]) -> None:
    """The greedy answer is that of a conversation which began with it; without a chat template there is no place."""
    answers, notices = session([speaker(models["one"])], "/system\n/system Be brief.\n/system\nHi.\n")
    assert notices.splitlines() == [
        "(there is no system message)",
        *["(system: Be brief.)"] * 2,
        "(cut: the answer reached its longest length; see --max-tokens)",
    ]
    assert answers == session([speaker(models["one"], "Be brief.")], "Hi.\n")[0]
    assert answers != session([speaker(models["one"])], "Hi.\n")[0]
    _, notices = session([speaker(models["plain"])], "/system Be brief.\n")
    assert "(this model has no chat template, so there is no place for a system message)" in notices


def test_weights_in_int8_are_said_at_the_start_and_stay(models: dict[str, str]) -> None:
    """What they change stands in the first lines, and again for another model; the same seed gives the same answer."""
    if kernels(torch.float32) is None:
        pytest.skip("there is no C compiler here")
    found = open_speaker(Model(path=models["one"], device="cpu", dtype="fp32"), GREEDY, int8=True)
    answers, notices = session([found], f"Hi.\n/again\n/model {models['other']}\n/model {models['gpt2']}\nHi.\n")
    lines = notices.splitlines()
    assert lines[0].startswith(f"({models['one']}: weights in int8, 0 MB more: over 248 tokens of a text the log-prob")
    assert sum(line.startswith(f"({models['other']}: weights in int8, ") for line in lines) == 1
    refused = "no lean step for gpt2; it is there for llama, mistral, qwen2, qwen3. Leave it out"
    assert f"(--weights int8: {models['gpt2']}: {refused}; {models['other']} stays)" in lines
    first, again, other = answers.splitlines()
    assert first == again != other
    assert found.conversation.policy.decoder is not None


def test_weights_are_put_in_order_once(models: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the first answer, not before each; the answers are those of a decoder of their own."""
    found = speaker(models["one"])
    with monkeypatch.context() as patch:
        patch.setattr(Trunk, "lean_decoder", lambda *given: pytest.fail("a second decoder"))
        answers, _ = session([found], "Hi.\nAnd?\n")
    apart = speaker(models["one"])
    apart.conversation.policy.decoder = None
    assert session([apart], "Hi.\nAnd?\n")[0] == answers


def test_a_saved_conversation_is_training_data(models: dict[str, str], tmp_path: Path) -> None:
    """Two exchanges are one row of `messages`, two demonstrations; a second save is a second row."""
    file = tmp_path / "talk.jsonl"
    found = speaker(models["one"], "Be brief.")
    _, notices = session([found], f"/save {file}\nHi.\nAnd?\n/save {file}\n/reset\nBye.\n/save {file}\n")
    for words in ("(nothing was said yet)", f"(1 row in {file})", f"(1 row appended to {file}, which was there)"):
        assert words in notices
    shown = load(Source(str(file)), "demonstrations").records
    assert [len(one.context) for one in shown] == [2, 4, 2]
    assert shown[1].context[:2] == (Turn("system", "Be brief."), Turn("user", "Hi."))
    assert shown[1].context[2] == Turn("assistant", shown[0].answer)
    assert found.conversation.turns == [Turn("user", "Bye."), Turn("assistant", shown[2].answer)]


def test_what_left_the_window_is_saved_too(models: dict[str, str], tmp_path: Path) -> None:
    """Six exchanges, of which a window of 128 tokens holds fewer; without a template each is a row of its own."""
    for name, rows in (("one", 1), ("plain", 6)):
        found, file = speaker(models[name]), tmp_path / f"{name}.jsonl"
        session([found], "What is in the box?\n" * 6 + f"/save {file}\n")
        assert len(found.conversation.turns) < 12
        saved = [json.loads(line)["messages"] for line in file.read_text(encoding="utf-8").splitlines()]
        assert (len(saved), sum(len(one) for one in saved)) == (rows, 12)


def test_a_file_of_something_else_is_left_alone(models: dict[str, str], tmp_path: Path) -> None:
    """Not JSON, or rows of another kind: refused; a last line without its end gets one."""
    for content in ("print(1)\n", '{"prompt": "a", "completion": "b"}\n'):
        (tmp_path / "mine").write_text(content)
        _, notices = session([speaker(models["one"])], f"Hi.\n/save {tmp_path / 'mine'}\n")
        assert f"({tmp_path / 'mine'}:1: " in notices
        assert (tmp_path / "mine").read_text() == content
    (tmp_path / "mine").write_text('{"messages": []}')
    session([speaker(models["one"])], f"Hi.\n/save {tmp_path / 'mine'}\n")
    rows = [json.loads(line) for line in (tmp_path / "mine").read_text().splitlines()]
    assert [list(row) for row in rows] == [["messages"], ["messages", "model"]]
    _, notices = session([speaker(models["one"])], f"Hi.\n/save {tmp_path / 'none' / 'mine'}\n")
    assert f"({tmp_path / 'none' / 'mine'}: " in notices


@pytest.mark.parametrize("name", ["~nobody-of-this-name/mine", "mi\0ne"])
def test_a_name_that_no_file_can_have_ends_no_conversation(models: dict[str, str], name: str) -> None:
    """Neither to save in nor as a model: each is a notice, and the next question is answered."""
    answers, notices = session([speaker(models["one"])], f"Hi.\n/save {name}\n/model {name}\nAnd?\n")
    assert answers == session([speaker(models["one"])], "Hi.\nAnd?\n")[0]
    assert len([line for line in notices.splitlines() if not line.startswith("(cut: ")]) == 2


def test_another_model_goes_on_with_the_conversation(models: dict[str, str]) -> None:
    """Its answer is drawn after what the first one said; a wrong name changes nothing."""
    lines = "Hi.\n/model nowhere/at/all\nAnd?\n"
    found = speaker(models["one"])
    kept, notices = session([found], lines)
    assert kept == session([speaker(models["one"])], "Hi.\nAnd?\n")[0]
    assert f"no such directory, and not a hub name (owner/name); {models['one']} stays)" in notices
    talk = [speaker(models["one"])]
    answers, notices = session(talk, f"Hi.\n/model {models['other']}\nAnd?\n/model\n")
    assert notices.count(f"({models['other']} on cpu in float32)") == 2
    other = speaker(models["other"])
    other.conversation.turns = talk[0].conversation.turns[:2]
    assert answers == kept.splitlines(keepends=True)[0] + session([other], "And?\n")[0]


def test_a_model_without_a_place_for_it_goes_on_without_the_system_message(models: dict[str, str]) -> None:
    talk = [speaker(models["one"], "Be brief.")]
    answers, notices = session(talk, f"Hi.\n/model {models['plain']}\nHi.\n")
    assert f"({models['plain']} has no chat template, so the system message is left out)" in notices
    assert answers.endswith(session([speaker(models["plain"])], "Hi.\n")[0])


@pytest.mark.parametrize(
    ("line", "notice"),
    [
        ("/rset", "(/rset is no command; did you mean /reset? /help lists them)"),
        ("/sytem Be brief.", "(/sytem is no command; did you mean /system? /help lists them)"),
        ("/zzz", "(/zzz is no command; /help lists them)"),
        ("/reset all", "(/reset takes nothing behind it)"),
        ("/save", "(/save FILE: the file is missing)"),
        ("/again", "(there is no answer yet)"),
        ("/set heat 1", "(heat is no setting; known: max_tokens, temperature, top_p, top_k, repetition, seed)"),
        ("/set repetitoin 1", '(repetitoin is no setting; did you mean "repetition"?)'),
    ],
)
def test_lines_that_cannot_be_heeded_say_why(models: dict[str, str], line: str, notice: str) -> None:
    assert session([speaker(models["one"])], line + "\n") == ("", notice + "\n")


def test_how_answers_are_drawn_is_changed_on_the_way(models: dict[str, str]) -> None:
    """The conversation stays; the next answer is that of one which was begun so. A wrong value changes nothing."""
    found = [speaker(models["one"]), speaker(models["other"])]
    _, notices = session(found, "Hi.\n/set repetition 0\n/set max-tokens 3\n/set\n")
    *_, wrong, changed, shown = notices.splitlines()
    assert wrong == "(option: repetition: is 0; must be greater than or equal to 1)"
    assert changed == shown == "(max_tokens 3, temperature 0, top_p 1, top_k 0, repetition 1, seed 0)"
    assert [len(one.conversation.turns) for one in found] == [2, 2]
    assert {one.conversation.sampling.max_tokens for one in found} == {3}


def test_an_answer_that_goes_round_in_circles_is_said_to() -> None:
    """The same six words ten times are; 60 words that differ are not, nor is a short answer."""
    assert circles("the hen eats the red corn " * 10)
    assert not circles(" ".join(f"word{number}" for number in range(60)))
    assert not circles("no no no no")


def test_two_models_are_asked_the_same(models: dict[str, str]) -> None:
    """From a pipe each line of an answer begins with its model's name and a tab; each goes on with its own answers."""
    alone = {name: session([speaker(models[name])], "Hi.\nAnd?\n/again\n")[0] for name in ("one", "other")}
    both, _ = session([speaker(models["one"]), speaker(models["other"])], "Hi.\nAnd?\n/again\n")
    for name, answers in alone.items():
        mine = [line.partition("\t")[2] for line in both.split("\n") if line.startswith(models[name] + "\t")]
        assert "\n".join(mine) + "\n" == answers
    assert [line.partition("\t")[0] for line in both.splitlines()][:2] != [models["one"]] * 2
    assert alone["one"] != alone["other"]
    assert "\x1b" not in visible(both)


def test_a_model_is_not_asked_against_itself(models: dict[str, str]) -> None:
    """Exit code 2 before anything is loaded; `/model` does not bring it about either."""
    _, notices = session([speaker(models["one"]), speaker(models["other"])], f"/model {models['other']}\n/model\n")
    shown = [f"({models[name]} on cpu in float32)" for name in ("one", "other")]
    assert notices.splitlines() == [f"({models['other']} is the other model; {models['one']} stays)", *shown]
    done = CliRunner().invoke(app, ["chat", models["one"], "--against", models["one"]])
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == f"error: --against: {models['one']}: is the model itself; name another one\n"
