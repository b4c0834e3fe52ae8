"""What reaches the server at all: requests for a host it knows, of no other web site, with the key where there is one.

A server on this machine is open to every web site its user visits, unless it looks at the Host (a name that was pointed
at 127.0.0.1) and at the Origin (a form that another site sends).
"""

import hmac
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from smolt.serving.address import is_foreign, is_known
from smolt.serving.bodies import Refusal

OPEN = ("/health",)
"""Paths that ask for no key."""


@dataclass(frozen=True)
class Gate:
    """An application behind the checks.

    Attributes:
        app: what is guarded.
        hosts: Host headers that are answered, in small letters.
        numbers: answer every Host that is the number of an address: one cannot be another site's name.
        key: what clients must send as `Authorization: Bearer KEY`; None asks for none.
    """

    app: ASGIApp
    hosts: Sequence[str]
    numbers: bool = False
    key: str | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or let the application answer."""
        if scope["type"] == "http":
            try:
                self._check(scope)
            except Refusal as refusal:
                answer = JSONResponse(refusal.document, refusal.status, refusal.headers)
                await answer(scope, receive, send)
                return
        elif scope["type"] != "lifespan":
            await send({"type": "websocket.close", "code": 1008})
            return
        await self.app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        """Raises Refusal for what must not reach the application."""
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not is_known(hosts[0], self.hosts, self.numbers):
            raise Refusal(400, "this server is not asked by this Host; see --allow-host", code="unknown_host")
        if is_foreign(headers.get("origin"), hosts[0]):
            raise Refusal(403, "a request of another web site is not answered", code="foreign_origin")
        if self.key is not None and scope["path"] not in OPEN:
            given = headers.get("authorization", "")
            scheme, _, key = given.partition(" ")
            fits = hmac.compare_digest(key.strip().encode(), self.key.encode())
            if not fits or scheme.lower() != "bearer":
                said = "the API key is wrong" if given else "this server wants an API key: Authorization: Bearer KEY"
                raise Refusal(
                    401,
                    said,
                    code="invalid_api_key",
                    kind="authentication_error",
                    headers={"www-authenticate": "Bearer"},
                )
