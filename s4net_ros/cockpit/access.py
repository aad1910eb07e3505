"""Who may talk to the cockpit: by default only pages of its own, in browsers of this computer."""

import hmac
import ipaddress
from collections.abc import Awaitable, Callable
from urllib.parse import SplitResult, urlsplit

from aiohttp import web

from s4net_core.config import CockpitSettings
from s4net_core.errors import SettingsError

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
"""Names of this computer in a browser's address bar; another name may be one that was led here (DNS rebinding)."""
COOKIE = "s4net_cockpit"
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""Of every answer: nothing is loaded from elsewhere, and no page elsewhere may hold ours in a frame."""


class Access:
    """Checks every request, the opening of a websocket included.

    Without a token the client must be on this computer and call it by one of `LOCAL_NAMES`. With a token every request
    must carry it: in ``?token=...``, which a cookie then takes over. A page of another origin is refused in all cases.

    Args:
        settings: `address` and `token`.

    Raises:
        SettingsError: other computers could reach the address, and there is no token.
    """

    def __init__(self, settings: CockpitSettings) -> None:
        self._token = settings.token.encode()
        if not self._token and not _is_loopback(settings.address):
            raise SettingsError(
                f"cockpit.address is {settings.address}, which other computers may reach: set cockpit.token as well, "
                "or leave the address at 127.0.0.1"
            )

    def guarded(self, handler: Handler) -> Handler:
        """The handler for requests that are let in; others are refused. Every answer gets `HEADERS`.

        This is no middleware, because aiohttp never forgets what it has called through one.
        """

        async def answer(request: web.Request) -> web.StreamResponse:
            response = self._refusal(request) or self._without_token(request) or await handler(request)
            if not response.prepared:
                response.headers.update(HEADERS)
            return response

        return answer

    def _refusal(self, request: web.Request) -> web.Response | None:
        reason = self.objection(request)
        return web.Response(status=403, text=f"{reason}\n") if reason else None

    def _without_token(self, request: web.Request) -> web.Response | None:
        """Leads to the page's address without the token, which people copy and photograph; a cookie takes it over."""
        if not self._token or request.path != "/" or "token" not in request.query:
            return None
        moved = web.Response(status=302, headers={"Location": "/"})
        moved.set_cookie(COOKIE, request.query["token"], httponly=True, samesite="Strict")
        return moved

    def objection(self, request: web.Request) -> str:
        """Why the request is refused; empty = it is not."""
        host = request.headers.get("Host", "")
        origin = request.headers.get("Origin")
        if origin is not None and _split(origin).netloc != host:
            return f"a page of {origin:.100} may not use the cockpit"
        if self._token:
            given = request.query.get("token") or request.cookies.get(COOKIE, "")
            if not hmac.compare_digest(given.encode(errors="replace"), self._token):
                return "the token is missing or wrong: open the address with ?token=... as cockpit.token has it"
            return ""
        if not _is_loopback(request.remote or ""):
            return "the cockpit serves this computer alone: set cockpit.token to let others in"
        if _split(f"//{host}").hostname not in LOCAL_NAMES:
            return f"the cockpit is not {host:.100}: open it as http://127.0.0.1, or set cockpit.token"
        return ""


def _split(address: str) -> SplitResult:
    """Parts of an address; empty ones where it is no address."""
    try:
        return urlsplit(address)
    except ValueError:
        return urlsplit("")


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"
