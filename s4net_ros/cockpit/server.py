"""The cockpit's web server: one page, and one websocket for each browser that shows it.

It runs on a thread of its own. Each browser gets one bundle at a time and acknowledges it, so that a slow one gets the
newest state later instead of a queue.
"""

import asyncio
import errno
import json
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from aiohttp import WSMsgType, web

from s4net_core.config import CockpitSettings
from s4net_core.errors import S4NetError
from s4net_ros.cockpit.access import Access
from s4net_ros.cockpit.board import Board

PAGE = Path(__file__).parent / "page"
FILES = {"/": "index.html", "/cockpit.css": "cockpit.css", "/cockpit.js": "cockpit.js"}
PICTURES = "pictures"
"""Name on the board of the one value that is no JSON: a dict of bytes by name."""
MAX_BROWSERS = 8
MAX_REQUEST = 1024
"""Bytes of a message from a browser."""
PERIOD_S = 0.1
"""Seconds between two bundles to one browser."""
SILENCE_S = 20.0
"""Seconds after which a browser that acknowledges nothing is no longer looking, and its websocket is closed."""
STOP_S = 0.5


class Server:
    """Serves the page from its making until `stop`.

    Args:
        settings: address, port and token.
        board: what browsers are shown.
        on_watch: called on the server's thread when the first browser comes and when the last one goes.
        on_command: called on the server's thread with the name of a button.

    Raises:
        S4NetError: the address or the port cannot be used, or would be open to others.
    """

    def __init__(
        self,
        settings: CockpitSettings,
        board: Board,
        on_watch: Callable[[], None],
        on_command: Callable[[str], None],
    ) -> None:
        access = Access(settings)
        self._board, self._on_watch, self._on_command = board, on_watch, on_command
        self._sockets: set[web.WebSocketResponse] = set()
        self._socket = _listen(settings)
        self._app = web.Application()
        self._app.router.add_get("/ws", access.guarded(self._talk))
        for path in FILES:
            self._app.router.add_get(path, access.guarded(self._file))
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="cockpit server", daemon=True)
        self._thread.start()

    @property
    def browsers(self) -> int:
        """Number of browsers that look."""
        return len(self._sockets)

    def stop(self) -> None:
        """Close all connections and end the thread."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(STOP_S)

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        if rest := asyncio.all_tasks(self._loop):  # talks with browsers that do not answer
            for task in rest:
                task.cancel()
            self._loop.run_until_complete(asyncio.wait(rest, timeout=STOP_S))
        self._loop.close()

    async def _serve(self) -> None:
        runner = web.AppRunner(self._app, access_log=None)
        await runner.setup()
        await web.SockSite(runner, self._socket).start()
        await self._stopping.wait()
        for websocket in list(self._sockets):
            await websocket.close(code=1001, message=b"the cockpit ends")
        await runner.cleanup()

    async def _file(self, request: web.Request) -> web.StreamResponse:
        return web.FileResponse(PAGE / FILES[request.path])

    async def _talk(self, request: web.Request) -> web.StreamResponse:
        if len(self._sockets) >= MAX_BROWSERS:
            return web.Response(status=503, text=f"{MAX_BROWSERS} browsers are looking already: close one\n")
        websocket = web.WebSocketResponse(timeout=STOP_S, max_msg_size=MAX_REQUEST, heartbeat=SILENCE_S, compress=False)
        await websocket.prepare(request)
        drawn = asyncio.Event()
        self._sockets.add(websocket)
        if len(self._sockets) == 1:
            self._on_watch()
        feeding = asyncio.ensure_future(self._feed(websocket, drawn))
        try:
            await self._listen_to(websocket, drawn)
        finally:
            self._sockets.discard(websocket)
            if not self._sockets:
                self._on_watch()
            feeding.cancel()
            with suppress(asyncio.CancelledError):
                await feeding
        return websocket

    async def _listen_to(self, websocket: web.WebSocketResponse, drawn: asyncio.Event) -> None:
        """Take what the browser says: ``drawn``, or the name of a button."""
        async for message in websocket:
            if message.type != WSMsgType.TEXT:
                break
            if message.data == "drawn":
                drawn.set()
            else:
                self._on_command(message.data)

    async def _feed(self, websocket: web.WebSocketResponse, drawn: asyncio.Event) -> None:
        """Send what is new, wait until the browser has drawn it, and again."""
        seen: dict[str, int] = {}
        try:
            while True:
                if news := self._board.news(seen):
                    drawn.clear()
                    await asyncio.wait_for(websocket.send_bytes(bundle(news)), SILENCE_S)
                    await asyncio.wait_for(drawn.wait(), SILENCE_S)
                await asyncio.sleep(PERIOD_S)
        except (asyncio.TimeoutError, ConnectionError):  # it no longer looks
            pass
        finally:
            await websocket.close()


def bundle(news: Mapping[str, Any]) -> bytes:
    """One message: length of the JSON (4 bytes, big endian), the JSON, then the pictures that it lists, in order."""
    pictures: Mapping[str, bytes] = news.get(PICTURES, {})
    values = {name: value for name, value in news.items() if name != PICTURES}
    values[PICTURES] = {name: len(data) for name, data in pictures.items()}
    head = json.dumps(values, allow_nan=False).encode()
    return b"".join((struct.pack(">I", len(head)), head, *pictures.values()))


def _listen(settings: CockpitSettings) -> socket.socket:
    address, port = settings.address, settings.port
    try:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        return socket.create_server((address, port), family=family)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise S4NetError(
                f"cockpit.port {port} is in use: another cockpit may be running; end it, or set cockpit.port to "
                "another number"
            ) from error
        raise S4NetError(
            f"the cockpit cannot serve on cockpit.address {address}, port {port}: {error.strerror}; use 127.0.0.1 and "
            "a port above 1023"
        ) from error


def free_port(settings: CockpitSettings) -> int:
    """The port of the settings; where it is in use, any that is free."""
    for port in (settings.port, 0):
        with suppress(S4NetError), _listen(settings.model_copy(update={"port": port})) as found:
            return int(found.getsockname()[1])
    raise S4NetError(f"cockpit.address {settings.address} has no free port: set it to 127.0.0.1")


def address_of(settings: CockpitSettings) -> str:
    """What to type into a browser, without the token."""
    host = socket.gethostname() if settings.address in ("0.0.0.0", "::") else settings.address
    host = f"[{host}]" if ":" in host else host
    return f"http://{host}:{settings.port}/"
