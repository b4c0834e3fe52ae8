"""Many visitors at once: states apart, a limit on what waits, and 500 ways to ask for a file that all fail."""

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

pytest.importorskip("gradio", reason="the extra ui is not installed")

from smolt.ui.face import QUEUE
from tests.runs.test_listing import begun
from tests.tiny import tiny_model
from tests.ui.conftest import Opener

VISITORS = 50


def function(address: str, name: str) -> int:
    """The number of an event of the page."""
    with urlopen(f"{address}/config") as answer:
        found = [one["id"] for one in json.load(answer)["dependencies"] if one["api_name"] == name]
    return int(found[0])


def post(address: str, path: str, visitor: str, number: int, data: list[Any]) -> tuple[int, Any]:
    """The status and the answer of an event."""
    body = json.dumps({"data": data, "fn_index": number, "session_hash": visitor}).encode()
    try:
        with urlopen(Request(f"{address}{path}", body, {"content-type": "application/json"})) as answer:
            return answer.status, json.load(answer)
    except HTTPError as error:
        return error.code, None


def test_fifty_visitors_do_not_mix(opened: Opener) -> None:
    """Each asks twice, all at once; each conversation holds its own two questions and nobody else's."""
    address = opened()
    begin = function(address, "begin")

    def talk(number: int) -> str:
        for turn in ("first", "second"):
            status, answer = post(
                address, "/gradio_api/run/predict", f"visitor{number}", begin, [f"<{turn} {number}>", None, None]
            )
            assert status == 200
        return str(answer["data"])

    with ThreadPoolExecutor(10) as pool:
        pages = list(pool.map(talk, range(VISITORS)))
    for number, page in enumerate(pages):
        own = [f"&lt;{turn} {number}&gt;" in page for turn in ("first", "second")]
        assert own == [True, True]
        assert page.count("&lt;first") == page.count(f"&lt;first {number}&gt;")


def test_what_waits_has_a_limit(opened: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many requests that nobody answers yet, at most QUEUE wait: the next ones get 503."""
    monkeypatch.setattr("smolt.ui.face.QUEUE", 2)
    address = opened(str(tiny_model(tmp_path / "alpha")))
    number = function(address, "speak")
    monkeypatch.setattr("gradio.queueing.Queue.process_events", _never)
    found = [post(address, "/gradio_api/queue/join", f"visitor{one}", number, [None] * 8)[0] for one in range(20)]
    assert 503 in found
    assert found.count(200) < 20
    assert QUEUE == 32


async def _never(*given: Any, **named: Any) -> None:
    await asyncio.sleep(5)


WAYS = ("/gradio_api/file=", "/file=", "/file/", "/report/", "/assets/", "/static/", "/svelte/", "/", "/gradio_api/")
STEPS = ("", "../", "..%2f", "%2e%2e/", "%252e%252e/", "....//", "..\\", "..%5c", "/", "//", "./", "%00/")
PLACES = ("{secret}", "{secret}%00.html", "runs/one/../../secret.txt", "one/../../secret.txt", "one/manifest.json")


def test_five_hundred_ways_to_a_file_fail(opened: Opener, tmp_path: Path) -> None:
    """540 addresses: none gives a file of this machine, the runs directory's own manifests among them."""
    (tmp_path / "secret.txt").write_text("SECRET")
    begun(tmp_path / "runs" / "one").close()
    address = opened()
    asked = 0
    for way, step, place in product(WAYS, STEPS, PLACES):
        path = way + step + place.format(secret=str(tmp_path / "secret.txt").lstrip("/"))
        asked += 1
        try:
            with urlopen(Request(f"{address}{path}", headers={"accept": "*/*"})) as answer:
                body, status = answer.read().decode("utf-8", "replace"), answer.status
        except HTTPError as error:
            body, status = error.read().decode("utf-8", "replace"), error.code
        assert "SECRET" not in body and "smolt-run" not in body, path
        assert status != 200, path
    assert asked == 540
