"""An endpoint as judge, over real sockets on loopback: soft and hard labels, faults, retries, the key."""

import json
import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from smolt.config import Endpoint, Judging, make_block
from smolt.errors import UserError
from smolt.models.forward.precision import choose_precision
from smolt.preferences.judges.both_orders import Judgement, judge_pairs
from smolt.preferences.judges.opening import open_judge
from smolt.rewards.llm_judge import connection as connections
from smolt.rewards.llm_judge.cache import VerdictCache
from smolt.rewards.llm_judge.connection import asked_pause
from tests import judge_stubs as stubs
from tests.judge_server import Handler, Script, serving

KEY = "sk-secret-0123456789"


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses of a millisecond, and no key from outside."""
    monkeypatch.setattr(connections, "FIRST_PAUSE", 0.001)
    monkeypatch.delenv("SMOLT_JUDGE_KEY", raising=False)


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[VerdictCache]:
    with VerdictCache(tmp_path / "verdicts.sqlite") as store:
        yield store


def judged(script: Script, cache: VerdictCache, count: int = 6, rationale: int = 0, **endpoint: Any) -> list[Judgement]:
    with serving(script) as url:
        settings = make_block(
            Judging, endpoint={"url": url, "model": "stub", "timeout": 5.0, **endpoint}, rationale=rationale
        )
        judge = open_judge(settings, choose_precision("cpu", "fp32"), no_model)
        return judge_pairs(judge, stubs.pairs(count), cache)


def no_model(part: object) -> Any:
    raise AssertionError("no reward model is asked for")


def test_soft_labels_are_the_log_odds_of_the_letters(cache: VerdictCache) -> None:
    """Log-odds 2 for the good answer whichever its place: margin +-2, label sigmoid(2) = 0.881, tokens counted."""
    script = Script()
    judgements = judged(script, cache)
    expected = [2.0, -2.0] * 3
    assert [judgement.margin for judgement in judgements] == pytest.approx(expected)
    assert judgements[0].probability == pytest.approx(1 / (1 + math.exp(-2)))
    assert all(one.original.soft and one.consistent and one.original.tokens == (50, 1) for one in judgements)
    assert len(script.seen) == 12
    assert {(body["temperature"], body["logprobs"], body["model"]) for body in script.seen} == {(0, True, "stub")}


@pytest.mark.parametrize("logprobs", [False, "refuse"])
def test_hard_labels_where_there_are_no_logprobs(cache: VerdictCache, logprobs: bool | str) -> None:
    """The letter in words: margin +-1. A server that refuses the question for log-probabilities is asked without."""
    script = Script(logprobs=logprobs)
    judgements = judged(script, cache, parallel=1)
    assert [judgement.margin for judgement in judgements] == [1.0, -1.0] * 3
    assert not any(judgement.original.soft for judgement in judgements)
    assert len(script.seen) == (12 if logprobs is False else 13)


@pytest.mark.parametrize("fault", [429, 500, 503, "garbage", "truncated", "empty"])
def test_every_second_request_fails_and_nothing_is_lost(cache: VerdictCache, fault: object) -> None:
    """All verdicts come, each after one more try at most: 12 good replies out of 24 requests."""
    script = Script(fault=lambda number, body: fault if number % 2 else None)
    judgements = judged(script, cache, parallel=1)
    assert [judgement.margin for judgement in judgements] == pytest.approx([2.0, -2.0] * 3)
    assert len(script.seen) == 24


def test_a_server_that_hangs_once(cache: VerdictCache) -> None:
    """The reply does not come within the timeout; the second try gives it."""
    script = Script(fault=lambda number, body: "hang" if number == 1 else None)
    judgements = judged(script, cache, count=1, parallel=1, timeout=0.3)
    assert judgements[0].margin == pytest.approx(2.0) and len(script.seen) == 3


def test_words_that_name_no_answer_are_failures_and_are_kept(cache: VerdictCache) -> None:
    """12 unreadable replies: 6 failures, no tie, and no second question for them."""
    script = Script(logprobs=False, fault=lambda number, body: "Once upon a time, there was")
    judgements = judged(script, cache)
    assert {judgement.outcome for judgement in judgements} == {"failed"}
    assert "Once upon a time" in judgements[0].reason
    assert len(cache) == 12 == len(script.seen)


def test_a_judge_that_is_gone_ends_it_and_keeps_what_was_said(cache: VerdictCache) -> None:
    """After 5 replies only 500: the command ends, 5 opinions are kept, and a later start asks the other 7 alone."""
    script = Script(fault=lambda number, body: 500 if number > 5 else None)
    with pytest.raises(UserError, match=r"3 requests in a row got no usable reply \(status 500: no, 2 tries\)"):
        judged(script, cache, parallel=1, attempts=2)
    assert len(cache) == 5 and len(script.seen) == 5 + 3 * 2


def test_no_verdict_is_asked_for_twice(cache: VerdictCache) -> None:
    """A second pass over the same pairs sends nothing, and a longer list only what is new."""
    script = Script()
    with serving(script) as url:
        settings = make_block(Judging, endpoint={"url": url, "model": "stub"})
        judge = open_judge(settings, choose_precision("cpu", "fp32"), no_model)
        first = judge_pairs(judge, stubs.pairs(4), cache)
        again = judge_pairs(judge, stubs.pairs(4), cache)
        assert first == again and len(script.seen) == 8
        judge_pairs(judge, stubs.pairs(6), cache)
        assert len(script.seen) == 12


def test_a_missing_reply_is_not_kept(cache: VerdictCache) -> None:
    """One showing of twelve gets no reply: that pair is unreached, never a tie, and is asked again by the next pass."""
    bad = {"Question 2?"}

    def fault(number: int, body: dict[str, Any]) -> Any:
        return 500 if any(text in body["messages"][0]["content"] for text in bad) else None

    script = Script(fault=fault)
    with serving(script) as url:
        settings = make_block(Judging, endpoint={"url": url, "model": "stub", "attempts": 2, "parallel": 1})
        judge = open_judge(settings, choose_precision("cpu", "fp32"), no_model)
        outcomes = [judgement.outcome for judgement in judge_pairs(judge, stubs.pairs(6), cache)]
        assert outcomes == ["first", "second", "unreached", "second", "first", "second"]
        assert len(cache) == 10
        bad.clear()
        assert judge_pairs(judge, stubs.pairs(6), cache)[2].outcome == "first"


def test_a_refused_request_abstains_once_the_judge_has_spoken(cache: VerdictCache) -> None:
    """Status 400 for one question after replies to others: an abstention with the server's reason, tried once."""

    def fault(number: int, body: dict[str, Any]) -> Any:
        return 400 if "Question 5?" in body["messages"][0]["content"] else None

    script = Script(logprobs=False, fault=fault)
    judgements = judged(script, cache, parallel=1)
    assert judgements[5].outcome == "abstained" and "refused with status 400" in judgements[5].reason


def test_a_judge_that_refuses_everything_is_an_error(cache: VerdictCache) -> None:
    with pytest.raises(UserError, match="refused with status 400"):
        judged(Script(fault=lambda number, body: 400), cache)
    assert len(cache) == 0


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (401, r"a key is needed \(status 401: no\): set the environment variable SMOLT_JUDGE_KEY"),
        (404, "check endpoint.url .most end in /v1.: no"),
        (302, "302"),
    ],
)
def test_a_wrong_key_or_address_ends_it_at_once(cache: VerdictCache, status: int, said: str) -> None:
    script = Script(fault=lambda number, body: (status, {"Location": "http://127.0.0.1:1/"}))
    with pytest.raises(UserError, match=said):
        judged(script, cache, parallel=1)
    assert len(script.seen) == 1


def test_a_web_page_is_no_reason(cache: VerdictCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Handler, "NO", b"<html><body>Bad gateway</body></html>")
    with pytest.raises(UserError, match=r"\(status 502, 1 tries\)"):
        judged(Script(fault=lambda number, body: 502), cache, attempts=1)


def test_the_server_says_how_long_to_wait(cache: VerdictCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry-After: 0.05 is waited for, not the own pause of 30 seconds."""
    monkeypatch.setattr(connections, "FIRST_PAUSE", 30.0)
    script = Script(fault=lambda number, body: (429, {"Retry-After": "0.05"}) if number == 1 else None)
    assert judged(script, cache, count=1, parallel=1)[0].margin == pytest.approx(2.0)


def test_retry_after_as_a_date_and_as_nonsense() -> None:
    """A date 100 seconds from now is 99 to 100 seconds; words are no pause."""
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    assert 98 <= (asked_pause(later) or 0) <= 100
    assert asked_pause("7") == 7.0 and asked_pause("soon") is None and asked_pause(None) is None


def test_the_rate_is_kept(cache: VerdictCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """At 1,200 requests a minute, 50 ms apart, four requests wait for 3 gaps together, in pauses of at most 150 ms."""
    waited: list[float] = []
    monkeypatch.setattr(connections.Connection, "pause", lambda self, seconds: waited.append(seconds))
    judged(Script(), cache, count=2, parallel=4, rate=1200.0)
    assert len(waited) == 3 and max(waited) <= 0.15 and sum(waited) > 0.2


def test_the_key_goes_into_the_header_and_nowhere_else(
    cache: VerdictCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    script = Script()
    judged(script, cache, key="MY_KEY")
    assert {headers["Authorization"] for headers in script.headers} == {f"Bearer {KEY}"}
    assert not any(KEY.encode() in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    echo = Script(fault=lambda number, body: (400, {"X": KEY}))
    with pytest.raises(UserError) as caught:
        judged(echo, cache, count=8, key="MY_KEY")
    assert KEY not in str(caught.value)


def test_without_a_key_there_is_no_header(cache: VerdictCache) -> None:
    script = Script()
    judged(script, cache, count=1)
    assert not any("Authorization" in headers for headers in script.headers)


@pytest.mark.parametrize("value", ["", "two words", "line\nbreak"])
def test_a_key_that_cannot_be_one(value: str, monkeypatch: pytest.MonkeyPatch, cache: VerdictCache) -> None:
    monkeypatch.setenv("MY_KEY", value)
    with pytest.raises(UserError, match="MY_KEY"):
        judged(Script(), cache, key="MY_KEY")


@pytest.mark.parametrize("url", ["ftp://x/v1", "http://user:pw@x/v1", "http://x/v1?key=1", "x"])
def test_addresses_that_are_refused(url: str) -> None:
    with pytest.raises(UserError, match=r"url: must be http://HOST"):
        make_block(Endpoint, url=url, model="m")


def test_a_rationale_is_a_request_of_its_own(cache: VerdictCache) -> None:
    """Two requests a showing: reasons without log-probabilities, then the choice after them; tokens of both count."""
    script = Script()
    judgements = judged(script, cache, count=1, rationale=32, parallel=1)
    assert judgements[0].margin == pytest.approx(2.0) and judgements[0].original.tokens == (100, 2)
    assert [len(body["messages"]) for body in script.seen] == [1, 3, 1, 3]
    assert [body["max_tokens"] for body in script.seen] == [32, 8, 32, 8]
    assert "logprobs" not in script.seen[0] and script.seen[1]["messages"][1]["role"] == "assistant"


def test_quoted_text_stands_between_marks_it_cannot_hold(cache: VerdictCache) -> None:
    """Every line that begins with the mark is the prompt's own: one for the dialogue, two answers, and the end."""
    script = Script()
    judged(script, cache, count=1)
    content = script.seen[0]["messages"][0]["content"]
    mark = content.split("Text after a mark ")[1][:6]
    assert [line for line in content.splitlines() if line.startswith(mark)] == [
        f"{mark} Conversation",
        f"{mark} Answer A",
        f"{mark} Answer B",
        f"{mark} End",
    ]
    assert json.dumps(script.seen[1]).count(mark) == 5
