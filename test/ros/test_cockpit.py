"""The cockpit without a browser: who gets in, what is sent, what it costs, and what its buttons do."""

import asyncio
import json
import math
import re
import signal
import socket
import struct
import time
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("s4net_ros.msg")

import aiohttp
import numpy as np
from aiohttp.test_utils import make_mocked_request
from cockpit_graph import Adaptation, Camera, cockpit_node, free_port, frustum, segmentation_node
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue
from visualization_msgs.msg import Marker

from s4net_core.config import CockpitSettings, Settings
from s4net_core.errors import S4NetError, SettingsError, ShapeError
from s4net_core.labels import SUNRGBD37
from s4net_ros.cockpit.access import COOKIE, Access
from s4net_ros.cockpit.board import Board
from s4net_ros.cockpit.comparison import Comparison
from s4net_ros.cockpit.pictures import shrunk
from s4net_ros.cockpit.readings import KeyframeMap, Readings
from s4net_ros.cockpit.server import MAX_BROWSERS, MAX_REQUEST, Server, address_of
from s4net_ros.cockpit.server import free_port as port_for
from s4net_ros.msg import AdaptationStatus, ModelUpdate

HERE = {"Host": "127.0.0.1:8650"}


def objection(settings=None, peer="127.0.0.1", path="/", **headers):
    """What `Access` says to a request, with ``Sec_Name`` for the header Sec-Name."""
    transport = SimpleNamespace(get_extra_info=lambda name, default=None: (peer, 50000) if name == "peername" else None)
    given = HERE | {name.replace("_", "-"): value for name, value in headers.items()}
    request = make_mocked_request("GET", path, headers=given, transport=transport)
    return Access(settings or CockpitSettings()).objection(request)


class TestAccess:
    @pytest.mark.parametrize("host", ["127.0.0.1:8650", "localhost:8650", "[::1]:8650", "localhost"])
    def test_browsers_of_this_computer_are_let_in(self, host):
        assert objection(Host=host) == ""
        assert objection(Host=host, Origin=f"http://{host}") == ""
        assert objection(Host=host, peer="::1") == ""

    @pytest.mark.parametrize("host", ["evil.example:8650", "localhost.evil.example", "192.168.0.7:8650", "[", ""])
    def test_a_name_that_was_led_to_this_computer_is_refused(self, host):
        assert f"the cockpit is not {host}" in objection(Host=host)

    @pytest.mark.parametrize("origin", ["http://evil.example", "http://127.0.0.1:8651", "null", "http://[", ""])
    def test_a_page_of_another_origin_is_refused_even_with_the_token(self, origin):
        assert "may not use the cockpit" in objection(Origin=origin)
        assert "may not use" in objection(CockpitSettings(token="s"), path="/ws?token=s", Origin=origin)

    def test_other_computers_are_refused_without_a_token(self):
        assert "set cockpit.token" in objection(peer="192.168.0.7")

    def test_with_a_token_every_request_needs_it(self):
        settings = CockpitSettings(token="secret", address="0.0.0.0")
        for peer, host in (("127.0.0.1", "127.0.0.1:8650"), ("192.168.0.7", "robot:8650")):
            assert "the token is missing or wrong" in objection(settings, peer, Host=host)
            assert "the token is missing or wrong" in objection(settings, peer, "/?token=secre", Host=host)
            assert "the token is missing or wrong" in objection(settings, peer, Host=host, Cookie=f"{COOKIE}=é")
            assert objection(settings, peer, "/?token=secret", Host=host) == ""
            assert objection(settings, peer, Host=host, Cookie=f"{COOKIE}=secret") == ""

    @pytest.mark.parametrize("address", ["0.0.0.0", "192.168.0.7", "::", "robot.local"])
    def test_an_address_that_others_reach_needs_a_token(self, address):
        with pytest.raises(SettingsError, match=rf"cockpit\.address is {address}.*set cockpit\.token"):
            Access(CockpitSettings(address=address))


class Served:
    """A server of its own, without ROS."""

    def __init__(self, **settings):
        self.settings = CockpitSettings(port=free_port(), **settings)
        self.board, self.watched, self.commands = Board(), [], []
        self.server = Server(self.settings, self.board, self._on_watch, self.commands.append)
        self.url = f"http://127.0.0.1:{self.settings.port}"

    def _on_watch(self):
        self.watched.append(self.server.browsers)


@pytest.fixture
def serve():
    served = []

    def make(**settings):
        served.append(Served(**settings))
        return served[-1]

    yield make
    for one in served:
        one.server.stop()


@asynccontextmanager
async def websocket(url, **options):
    async with aiohttp.ClientSession() as session, session.ws_connect(f"{url}/ws", **options) as socket:
        yield socket


def opened(bundle):
    """JSON and pictures of a message."""
    (length,) = struct.unpack(">I", bundle[:4])
    values, start = json.loads(bundle[4 : 4 + length]), 4 + length
    for name, size in values["pictures"].items():
        values["pictures"][name], start = bundle[start : start + size], start + size
    assert start == len(bundle)
    return values


async def eventually(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.01)


class TestServer:
    def test_the_page_is_whole_and_loads_nothing_from_elsewhere(self, serve):
        served = serve()

        async def visit():
            async with aiohttp.ClientSession(served.url) as session:
                for path in ("/", "/cockpit.css", "/cockpit.js"):
                    async with session.get(path) as answer:
                        text = await answer.text()
                        assert answer.status == 200
                        assert answer.headers["Content-Security-Policy"].startswith("default-src 'self'")
                        assert not re.findall(r"https?://|@import", text)
                async with session.get("/../access.py") as answer:
                    assert answer.status == 404

        asyncio.run(visit())

    def test_what_is_refused_gets_neither_page_nor_websocket(self, serve):
        served = serve(token="secret")

        async def visit():
            jar = aiohttp.CookieJar(unsafe=True)  # of addresses without a name, too
            async with aiohttp.ClientSession(served.url, cookie_jar=jar) as session:
                async with session.get("/cockpit.js") as answer:
                    assert answer.status == 403
                    assert "token" in await answer.text()
                with pytest.raises(aiohttp.WSServerHandshakeError):
                    await session.ws_connect("/ws")
                async with session.get("/?token=secret") as answer:  # leads to / with a cookie
                    assert (answer.status, str(answer.url)) == (200, f"{served.url}/")
            with pytest.raises(aiohttp.WSServerHandshakeError):
                async with websocket(served.url, headers={"Origin": "http://evil.example"}):
                    pass
            async with websocket(served.url, headers={"Origin": served.url, "Cookie": f"{COOKIE}=secret"}):
                await eventually(lambda: served.watched == [1])

        asyncio.run(visit())

    def test_a_slow_browser_gets_the_newest_picture_and_no_queue(self, serve):
        served = serve()
        served.board.put("pictures", {"color": b"first"})

        async def look():
            async with websocket(served.url) as browser:
                assert opened(await browser.receive_bytes(timeout=60))["pictures"] == {"color": b"first"}
                for number in range(50):
                    served.board.put("pictures", {"color": b"%d" % number, "after": b"more"})
                    served.board.put("status", {"step": number})
                    await asyncio.sleep(0.01)
                with pytest.raises(asyncio.TimeoutError):
                    await browser.receive(timeout=0.5)  # nothing is on its way before it has drawn
                await browser.send_str("drawn")
                last = opened(await browser.receive_bytes(timeout=60))
                assert last["status"] == {"step": 49}
                assert last["pictures"] == {"color": b"49", "after": b"more"}

        asyncio.run(look())

    def test_a_browser_that_acknowledges_nothing_is_no_longer_looking(self, serve, monkeypatch):
        monkeypatch.setattr("s4net_ros.cockpit.server.SILENCE_S", 0.3)
        served = serve()
        served.board.put("status", {"step": 1})

        async def look():
            async with websocket(served.url) as browser:
                await browser.receive_bytes(timeout=60)
                assert (await browser.receive(timeout=60)).type == aiohttp.WSMsgType.CLOSE
            await eventually(lambda: served.watched == [1, 0])

        asyncio.run(look())

    def test_browsers_come_and_go(self, serve):
        served = serve()

        async def look():
            async with websocket(served.url):
                async with websocket(served.url) as second:
                    await second.send_str("rollback")
                    await eventually(lambda: served.commands)
                await eventually(lambda: served.server.browsers == 1)
            await eventually(lambda: served.watched == [1, 0])  # told for the first, and when the last was gone

        asyncio.run(look())
        assert served.commands == ["rollback"]

    def test_browsers_and_what_they_send_are_bounded(self, serve):
        served = serve()

        async def look():
            async with aiohttp.ClientSession(served.url) as session:
                browsers = [await session.ws_connect("/ws") for _ in range(MAX_BROWSERS)]
                with pytest.raises(aiohttp.WSServerHandshakeError, match="503") as refused:
                    await session.ws_connect("/ws")
                assert refused.value.headers["X-Content-Type-Options"] == "nosniff"
                await browsers[0].send_str("x" * (MAX_REQUEST + 1))
                assert (await browsers[0].receive(timeout=60)).type == aiohttp.WSMsgType.CLOSE
                await browsers[1].send_bytes(b"rollback")
                assert (await browsers[1].receive(timeout=60)).type == aiohttp.WSMsgType.CLOSE
            assert served.commands == []

        asyncio.run(look())

    def test_a_port_in_use_is_named_with_the_remedy(self):
        settings = CockpitSettings(port=free_port())
        with socket.create_server(("127.0.0.1", settings.port)):
            with pytest.raises(S4NetError, match=rf"cockpit\.port {settings.port} is in use.*set cockpit\.port"):
                Server(settings, Board(), print, print)
            assert port_for(settings) not in (0, settings.port)
        assert port_for(settings) == settings.port

    def test_the_address_that_is_printed_can_be_opened(self):
        for address, host in (("127.0.0.1", "127.0.0.1"), ("::1", "[::1]"), ("0.0.0.0", socket.gethostname())):
            assert address_of(CockpitSettings(address=address)) == f"http://{host}:8650/"

    def test_it_ends_although_browsers_look(self, serve):
        served = serve()

        async def look():
            async with websocket(served.url) as browser:
                began = time.monotonic()
                await asyncio.get_running_loop().run_in_executor(None, served.server.stop)
                assert time.monotonic() - began < 0.5
                assert (await browser.receive(timeout=60)).type == aiohttp.WSMsgType.CLOSE

        asyncio.run(look())
        assert port_for(served.settings) == served.settings.port


class TestBoard:
    def test_a_reader_gets_what_it_has_not_seen(self):
        board, first, second = Board(), {}, {}
        board.put("a", 1)
        board.put("b", 1)
        assert board.news(first) == {"a": 1, "b": 1}
        assert board.news(first) == {}
        board.put("a", 1)  # the same again
        board.put("b", 2)
        assert board.news(first) == {"b": 2}
        board.drop("a")
        assert board.news(second) == {"b": 2}


@pytest.fixture
def board():
    return Board()


@pytest.fixture
def readings(board):
    return Readings(board, "/segmentation", "/adaptation")


def shown(board):
    return board.news({})


class TestReadings:
    def test_what_was_not_measured_is_null(self, board, readings):
        readings.on_status(AdaptationStatus(loss=0.5, agreement=math.nan, score=math.inf, step=3, state="learning"))
        values = shown(board)
        json.dumps(values, allow_nan=False)
        assert (values["curves"]["loss"], values["curves"]["agreement"], values["curves"]["score"]) == (
            [0.5],
            [None],
            [None],
        )
        assert (values["status"]["step"], values["status"]["state"]) == (3, "learning")

    def test_drops_of_both_nodes_come_with_their_remedy(self, board, readings):
        readings.on_status(AdaptationStatus(drop_reasons=["no_pose"], drop_counts=[4], rejected_reasons=["blurred"],
                                            rejected_counts=[2]))  # fmt: skip
        values = {"superseded": "7", "failed.color_format": "1", "received": "9", "state": "active"}
        readings.on_diagnostics([diagnostics("/segmentation", values), diagnostics("/other", {"superseded": "99"})])
        drops = {(one["node"], one["reason"]): one for one in shown(board)["drops"]}
        assert {key: one["count"] for key, one in drops.items()} == {
            ("adaptation", "no_pose"): 4,
            ("adaptation", "blurred"): 2,
            ("segmentation", "superseded"): 7,
            ("segmentation", "color_format"): 1,
        }
        assert "stream.fixed_frame" in drops["adaptation", "no_pose"]["remedy"]
        assert all(one["remedy"] for one in drops.values())
        assert shown(board)["nodes"] == {"segmentation": {"level": "warn", "message": "a message"}}

    def test_labels_per_second_follow_from_the_counter(self, board, readings, monkeypatch):
        clock = iter([10.0, 12.0, 12.001, 14.0])
        monkeypatch.setattr("s4net_ros.cockpit.readings.time", SimpleNamespace(monotonic=lambda: next(clock), time=int))
        for labelled in (100, 130, 140, 0):  # one comes right behind the other; the node begins anew
            readings.on_diagnostics([diagnostics("/segmentation", {"labelled": str(labelled)})])
            readings.on_status(AdaptationStatus())
        assert shown(board)["curves"]["labels_per_second"] == [None, 15.0, 15.0, 0.0]

    def test_versions_are_bounded_and_the_newest_comes_first(self, board, readings):
        for number in range(100):
            readings.on_update(ModelUpdate(version=number, agreement=0.5, source_miou=math.nan))
        versions = shown(board)["versions"]
        assert len(versions) == 50
        assert versions[0]["version"] == 99
        assert (versions[0]["agreement"], versions[0]["source_miou"]) == (0.5, None)


def diagnostics(node, values):
    pairs = [KeyValue(key=key, value=value) for key, value in values.items()]
    return DiagnosticStatus(level=DiagnosticStatus.WARN, hardware_id=node, message="a message", values=pairs)


class TestKeyframeMap:
    def test_keyframes_are_seen_from_above_with_their_direction_and_color(self, board):
        marker = frustum(3, 1.5)
        marker.pose.position.y = -2.0
        # Looks along +y of the world: the optical axis z is turned onto y.
        marker.pose.orientation.x, marker.pose.orientation.w = -math.sqrt(0.5), math.sqrt(0.5)
        marker.color.r, marker.color.g = 1.0, 0.5
        KeyframeMap(board).on_markers([marker])
        ((x, y, dx, dy, color),) = shown(board)["map"]["keyframes"]
        assert (x, y, color) == (1.5, -2.0, "rgb(255, 128, 0)")
        assert (dx, dy) == pytest.approx((0.0, 1.0), abs=1e-6)

    def test_what_is_gone_is_no_longer_shown(self, board):
        map = KeyframeMap(board)
        pairs = Marker(ns="keyframes/refused_pairs", points=[frustum(0, x).pose.position for x in (0.0, 1.0)])
        map.on_markers([frustum(1, 0.0), frustum(2, 1.0), pairs])
        assert shown(board)["map"]["refused"] == [[0.0, 0.0, 1.0, 0.0]]
        map.on_markers([frustum(1, 0.0, action=Marker.DELETE), Marker(ns=pairs.ns, action=Marker.DELETE)])
        assert [one[0] for one in shown(board)["map"]["keyframes"]] == [1.0]
        assert shown(board)["map"]["refused"] == []
        map.on_markers([Marker(ns="keyframes/frustum", action=Marker.DELETEALL)])
        assert shown(board)["map"]["keyframes"] == []

    def test_a_pose_that_is_not_finite_is_left_out(self, board):
        KeyframeMap(board).on_markers([frustum(1, math.nan), frustum(2, 1.0)])
        assert len(shown(board)["map"]["keyframes"]) == 1


@pytest.fixture
def comparison(make_checkpoint):
    settings = Settings(checkpoint=str(make_checkpoint(5)), device="cpu")
    settings.cockpit.picture_width = 70
    return Comparison(settings)


class TestComparison:
    def test_pixels_whose_class_differs_are_counted_and_drawn(self, comparison):
        color = np.full((50, 100, 3), 90, np.uint8)
        mask = np.full((50, 100), 5, np.uint8)
        mask[:, :25] = 7
        mask[:10, 25:75] = 255
        pictures, facts = comparison.draw(color, mask)
        assert facts["changed"] == pytest.approx(0.25 + 0.1)
        first, second = facts["classes"]
        assert (first["name"], first["before"], first["after"]) == (SUNRGBD37.names[4], 1.0, 0.65)
        assert (second["name"], second["before"], second["after"]) == (SUNRGBD37.names[6], 0.0, 0.25)
        assert set(pictures) == {"color", "before", "after", "changes"}
        assert all(data.startswith(b"\xff\xd8") for data in pictures.values())

    def test_a_mask_of_another_size_is_refused(self, comparison):
        with pytest.raises(ShapeError, match=r"mask is \(50, 90\) but its colour image is \(50, 100\)"):
            comparison.draw(np.zeros((50, 100, 3), np.uint8), np.zeros((50, 90), np.uint8))

    def test_pictures_are_not_wider_than_asked(self):
        label = np.zeros((50, 100), np.uint8)
        label[:, 50:] = 9
        assert shrunk(label, 70).shape == (35, 70)
        assert set(np.unique(shrunk(label, 70))) == {0, 9}
        assert shrunk(label, 100) is label


class TestNode:
    def test_while_nobody_looks_no_image_is_subscribed(self, ros, checkpoint):
        segmentation_node(ros, checkpoint)
        camera, adaptation = Camera(ros), Adaptation(ros)
        cockpit = cockpit_node(ros)
        assert cockpit.autostart()
        costly = ("segmentation/mask", "adaptation/keyframes")
        count = camera.node.count_subscribers
        ros.wait_for(lambda: adaptation.node.count_subscribers("adaptation/status"), "status")
        ros.wait_for(lambda: count("color/image_raw") == 1, "the segmentation node")
        assert [count(topic) for topic in costly] == [0, 0]

        async def look():
            async with websocket(f"http://127.0.0.1:{cockpit.settings.cockpit.port}") as browser:
                await eventually(lambda: count("color/image_raw") == 2)
                await eventually(lambda: [count(topic) for topic in costly] == [1, 1])
                values = {}
                while not {"changed", "map"} <= {*values, *values.get("frame", {})}:
                    values |= opened(await browser.receive_bytes(timeout=60))
                    await browser.send_str("drawn")
                assert values["frame"]["changed"] == 0.0  # the base model serves
                assert len(values["map"]["keyframes"]) == 2
            await eventually(lambda: [count(topic) for topic in costly] == [0, 0])
            await eventually(lambda: count("color/image_raw") == 1)

        asyncio.run(look())

    @pytest.mark.parametrize(
        ("button", "service"),
        [("pause", "pause"), ("resume", "pause"), ("rollback", "rollback"), ("reset", "reset"), ("save", "save_model")],
    )
    def test_a_button_calls_its_service_and_shows_the_answer(self, ros, button, service):
        adaptation, cockpit = Adaptation(ros), cockpit_node(ros)
        assert cockpit.autostart()
        ros.wait_for(lambda: cockpit.count_services(f"adaptation/{service}"), service)

        async def press():
            async with websocket(f"http://127.0.0.1:{cockpit.settings.cockpit.port}") as browser:
                action = None
                while not action or action["state"] == "running":
                    if action is None:
                        await browser.send_str(button)
                    values = opened(await browser.receive_bytes(timeout=60))
                    await browser.send_str("drawn")
                    action = values.get("action", action)
                return action

        action = asyncio.run(press())
        assert (action["name"], action["state"], action["text"]) == (button, "done", f"{service} is done")
        ((name, request),) = adaptation.calls[:1]
        assert name == service
        assert getattr(request, "data", None) == {"pause": True, "resume": False}.get(button)
        if button == "save":
            assert re.fullmatch(r"saved-\d{8}-\d{6}\.safetensors", request.path)  # in the node's state folder

    def test_what_was_pressed_while_it_stopped_is_not_done_when_it_starts_again(self, ros):
        adaptation, cockpit = Adaptation(ros), cockpit_node(ros)
        assert cockpit.autostart()
        ros.wait_for(lambda: cockpit.count_services("adaptation/reset"), "reset")

        def stop():
            cockpit._on_command("reset")  # as the server's thread may, before the executor has a turn
            cockpit.trigger_deactivate()

        ros.on_executor(stop)
        ros.on_executor(cockpit.trigger_activate)
        ros.wait_for(lambda: cockpit._buttons._clients["save_model"].service_is_ready(), "save_model")
        ros.on_executor(lambda: cockpit._on_command("save"))
        ros.wait_for(lambda: adaptation.calls, "the answer")
        assert [name for name, _ in adaptation.calls] == ["save_model"]

    def test_the_answer_to_a_button_that_was_given_up_is_not_shown_over_the_next_one(self, ros, monkeypatch):
        adaptation, cockpit = Adaptation(ros), cockpit_node(ros)
        assert cockpit.autostart()
        buttons = cockpit._buttons
        ros.wait_for(lambda: all(client.service_is_ready() for client in buttons._clients.values()), "services")
        monkeypatch.setattr("s4net_ros.cockpit.buttons.ANSWER_S", 0.0)
        shown = []
        monkeypatch.setattr(buttons, "_show", lambda *action: shown.append(action))

        def press_both():  # before the executor can take the first answer
            buttons.press("pause")
            buttons.press("rollback")

        ros.on_executor(press_both)
        ros.wait_for(lambda: ("rollback", "done", "rollback is done") in shown, "the second answer")
        assert [name for name, _ in adaptation.calls] == ["pause", "rollback"]
        assert [(name, state) for name, state, _ in shown] == [
            ("pause", "running"),
            ("rollback", "running"),
            ("rollback", "done"),
        ]

    def test_a_button_without_a_service_says_so(self, ros):
        cockpit = cockpit_node(ros)
        assert cockpit.autostart()

        async def press(button):
            async with websocket(f"http://127.0.0.1:{cockpit.settings.cockpit.port}") as browser:
                await browser.send_str(button)
                while True:
                    values = opened(await browser.receive_bytes(timeout=60))
                    await browser.send_str("drawn")
                    if values.get("action", {}).get("name") == button[:20]:
                        return values["action"]

        assert "nobody serves /adaptation/reset" in asyncio.run(press("reset"))["text"]
        assert "there is no such button" in asyncio.run(press("rm -rf"))["text"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_serves_until_a_signal_and_ends_within_a_second(spawn, number):
    port = free_port()
    process = spawn("-m", "s4net_ros.cockpit.command", "--set", f"cockpit.port={port}", "--namespace", "robot1")

    async def look():
        url = f"http://127.0.0.1:{port}"
        end = time.monotonic() + 60
        while True:
            try:
                async with websocket(url) as browser:
                    note = ""
                    while not note:
                        note = opened(await browser.receive_bytes(timeout=30)).get("note", "")
                        await browser.send_str("drawn")
                    assert note == "/robot1/segmentation is not there: start the nodes"
                    process.send_signal(number)
                    began = time.monotonic()
                    await asyncio.get_running_loop().run_in_executor(None, process.wait, 30)
                    return time.monotonic() - began
            except aiohttp.ClientConnectionError:
                assert time.monotonic() < end, process.communicate()
                await asyncio.sleep(0.1)

    seconds = asyncio.run(look())
    assert process.returncode == 0
    assert seconds < 1.0


def test_the_command_refuses_what_it_cannot_use(spawn):
    port = free_port()
    with socket.create_server(("127.0.0.1", port)):
        process = spawn("-m", "s4net_ros.cockpit.command", "--set", f"cockpit.port={port}")
        assert process.wait(60) == 1
        assert f"cockpit.port {port} is in use" in "".join(process.communicate())
    process = spawn("-m", "s4net_ros.cockpit.command", "--set", "cockpit.port=0")
    assert process.wait(60) == 2
    assert "s4net cockpit: settings: cockpit.port" in process.communicate()[1]
