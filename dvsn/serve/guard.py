"""Who may call: no other site's page by way of somebody's browser; and the headers that every answer bears."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any

from dvsn.serve.refusal import Refusal

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

LOCAL = ("localhost", "127.0.0.1", "[::1]")
PAGES = ("/", "/docs")
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Cache-Control": "no-store",
}


class Guard:
    """An ASGI application in front of another, which lets in what is meant for it.

    - The `Host` header must be one of `LOCAL`, or, where others than this machine may call (not `local`), also an address,
      this machine's name, or one of `names`: a page that points its own name at this machine is refused (DNS rebinding).
    - A request that a browser makes for another site's page (`Origin`, `Sec-Fetch-Site`) is refused; so no form of theirs
      can send pictures here. Links to the page may be followed.
    """

    def __init__(self, app: App, *, local: bool, names: Collection[str] = ()) -> None:
        self.app, self.local = app, local
        own = () if local else (socket.gethostname(), socket.getfqdn())
        self.names = {*LOCAL, *(name.lower() for name in (*own, *names))}

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = {name.lower() for name, _ in message["headers"]}
                message["headers"] = [
                    *message["headers"],
                    *((name.lower().encode(), value.encode()) for name, value in HEADERS.items()
                      if name.lower().encode() not in present),
                ]  # fmt: skip
            await send(message)

        refused = self.refused(scope)
        if refused is None:
            await self.app(scope, receive, with_headers)
            return
        start = [(b"content-type", b"application/json"), (b"content-length", str(len(refused.data)).encode())]
        await with_headers({"type": "http.response.start", "status": refused.status, "headers": start})
        await with_headers({"type": "http.response.body", "body": refused.data})

    def refused(self, scope: Message) -> Refusal | None:
        """Why a request is not let in, or None."""
        given: dict[str, str] = {}
        for name, value in scope["headers"]:
            given.setdefault(name.decode("latin-1").lower(), value.decode("latin-1"))
        host = given.get("host", "")
        if not self.knows(host):
            return Refusal(
                421, "unknown_host",
                "This server is not called by that name. Expected its address; another name is allowed by names=[NAME].",
            )  # fmt: skip
        origin = given.get("origin")
        if origin is not None and origin.partition("://")[2].lower() != host.lower():
            return Refusal(403, "other_site", "A page of another site may not use this server.")
        visited = (
            scope["method"] == "GET" and scope["path"] in PAGES and given.get("sec-fetch-mode") == "navigate"
        )
        if given.get("sec-fetch-site", "none") not in ("none", "same-origin") and not visited:
            return Refusal(403, "other_site", "A page of another site may not use this server.")
        return None

    def knows(self, host: str) -> bool:
        """Whether a `Host` header, a name or an address with or without a port, is this server's."""
        name = host.lower()
        name = name.partition("]")[0] + "]" if name.startswith("[") else name.partition(":")[0]
        if name in self.names:
            return True
        return not self.local and is_address(name)


def is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True
