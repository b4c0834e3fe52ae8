"""The password of a face that others can reach: one form, one cookie, and a wait that doubles with each wrong try."""

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field

COOKIE = "smolt_session"
FREE_TRIES = 3
"""Wrong passwords of an address before it has to wait."""
FIRST_WAIT = 1.0
LONGEST_WAIT = 300.0
KEPT = 12 * 3600.0
"""Seconds after which a session has to sign in again."""
MOST_SESSIONS = 1000
SHORTEST_PASSWORD = 8

PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>smolt: sign in</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>
:root {{ color-scheme: light dark }}
body {{ font: 1rem/1.5 system-ui, sans-serif; display: grid; place-items: center; min-height: 90vh; margin: 0 }}
form {{ display: grid; gap: .75rem; width: min(20rem, 85vw) }}
input, button {{ font: inherit; padding: .6rem .8rem; border-radius: 6px; border: 1px solid #888 }}
</style></head><body><form method="post" action="/sign-in"><h1>smolt</h1>
<label for="password">Password</label>
<input id="password" name="password" type="password" autocomplete="current-password" autofocus required>
<button>Sign in</button><p role="alert">{remark}</p></form></body></html>"""
"""The form; `remark` is one of our own sentences."""


@dataclass
class SignIn:
    """Who may come in.

    Attributes:
        password: what has to be typed.
        clock: seconds, for waits and for the end of sessions.
    """

    password: str
    clock: Callable[[], float] = time.monotonic
    _sessions: dict[str, float] = field(default_factory=dict)
    _wrong: dict[str, tuple[int, float]] = field(default_factory=dict)

    def knows(self, token: str) -> bool:
        """Whether a cookie's value belongs to a session that is still open."""
        began = self._sessions.get(_hash(token))
        return began is not None and self.clock() - began < KEPT

    def wait(self, address: str) -> float:
        """Seconds this address has to wait before its next try; 0 where it need not."""
        wrong, last = self._wrong.get(address, (0, 0.0))
        if wrong < FREE_TRIES:
            return 0.0
        pause = min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(wrong - FREE_TRIES, 20))
        return max(0.0, last + pause - self.clock())

    def open(self, address: str, password: str) -> str | None:
        """A new session's token, None for a wrong password; a try during the wait is not looked at."""
        if self.wait(address) > 0:
            return None
        if not hmac.compare_digest(_hash(password), _hash(self.password)):
            wrong, _ = self._wrong.get(address, (0, 0.0))
            if len(self._wrong) >= MOST_SESSIONS:
                self._wrong.pop(next(iter(self._wrong)))
            self._wrong[address] = (wrong + 1, self.clock())
            return None
        self._wrong.pop(address, None)
        if len(self._sessions) >= MOST_SESSIONS:
            self._sessions.pop(next(iter(self._sessions)))
        token = secrets.token_urlsafe(32)
        self._sessions[_hash(token)] = self.clock()
        return token


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
