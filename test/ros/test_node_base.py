"""What both nodes share: lifecycle, clock jumps, and the way a process ends."""

import re
import signal
from contextlib import ExitStack
from pathlib import Path

import pytest

pytest.importorskip("rclpy")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.msg import Log
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, qos_profile_rosout_default
from rosgraph_msgs.msg import Clock
from std_msgs.msg import String

from s4net_core.errors import BaseModelMissing, S4NetError, SettingsError
from s4net_ros import node_base
from s4net_ros.node_base import S4NetNode

INFO, WARN = 20, 30
"""Of rcl_interfaces/Log, whose constants are bytes in some distributions."""


class Recorder(S4NetNode):
    """Writes down what is asked of it; raises what it is told to."""

    def __init__(self, ros, fail=None, **options):
        super().__init__("recorder", context=ros.context, **options)
        self.calls = []
        self.fail = fail or {}

    def _note(self, name):
        self.calls.append(name)
        if name in self.fail:
            raise self.fail[name]

    def configure(self, undo):
        undo.callback(self._note, "cleanup")
        self._note("configure")
        self.publisher = self.create_lifecycle_publisher(String, "said", 10)
        return "what configure made"

    def activate(self, configured, undo):
        assert configured == "what configure made"
        undo.callback(self._note, "deactivate")
        self._note("activate")

    @property
    def state(self):
        return self._state_label()


# Lifecycle.


def test_it_starts_by_itself(ros):
    node = ros.add(Recorder(ros))
    assert node.autostart()
    assert node.running
    assert node.calls == ["configure", "activate"]


def test_the_state_tells_whether_it_started_not_what_the_triggers_return(ros, monkeypatch):
    node = ros.add(Recorder(ros))
    configure, activate = node.trigger_configure, node.trigger_activate
    monkeypatch.setattr(node, "trigger_configure", lambda: configure() and None)
    monkeypatch.setattr(node, "trigger_activate", lambda: activate() and None)
    assert node.autostart()
    assert node.state == "active"


@pytest.mark.parametrize("step", ["configure", "activate"])
def test_it_says_when_it_could_not_start(ros, step):
    node = ros.add(Recorder(ros, fail={step: S4NetError("no")}))
    assert not node.autostart()
    assert not node.running


@pytest.mark.parametrize("value", [False, "false"])
def test_a_lifecycle_manager_may_do_it_instead(ros, value):
    node = ros.add(Recorder(ros, parameter_overrides=[Parameter("autostart", value=value)]))
    assert node.autostart()
    assert not node.running
    assert node.state == "unconfigured"
    assert node.calls == []


@pytest.mark.parametrize("value", ["later", 2.5, [True]])
def test_autostart_that_is_neither_true_nor_false_is_refused(ros, value):
    with pytest.raises(SettingsError, match=r"parameter autostart = .*valid boolean"):
        Recorder(ros, parameter_overrides=[Parameter("autostart", value=value)])


def test_it_can_be_stopped_and_started_again(ros):
    node = ros.add(Recorder(ros))
    node.autostart()
    assert ros.on_executor(node.trigger_deactivate) == TransitionCallbackReturn.SUCCESS
    assert not node.running
    assert ros.on_executor(node.trigger_activate) == TransitionCallbackReturn.SUCCESS
    assert node.running


@pytest.mark.parametrize("state", ["unconfigured", "inactive", "active"])
def test_shut_down_gives_everything_back_from_every_state(ros, state):
    node = ros.add(Recorder(ros))
    if state != "unconfigured":
        node.trigger_configure()
    if state == "active":
        ros.on_executor(node.trigger_activate)
    node.calls.clear()
    undone = {"unconfigured": [], "inactive": ["cleanup"], "active": ["deactivate", "cleanup"]}[state]
    ros.on_executor(node.shut_down)
    assert node.calls == undone
    assert node.state == "finalized"
    ros.on_executor(node.shut_down)
    assert node.calls == undone


def test_a_refused_configuration_is_logged_cleaned_up_and_may_be_tried_again(ros, capfd):
    node = ros.add(Recorder(ros, fail={"configure": S4NetError("weights.st is not there: name another")}))
    assert not node.autostart()
    assert node.state == "unconfigured"
    assert node.calls == ["configure", "cleanup"]
    assert "weights.st is not there" in capfd.readouterr().err
    node.fail.clear()
    assert node.autostart()


def test_what_cannot_be_undone_is_logged_and_the_rest_is_undone_all_the_same(ros, capfd):
    node = ros.add(Recorder(ros, fail={"deactivate": RuntimeError("stuck")}))
    node.autostart()
    ros.on_executor(node.shut_down)
    assert node.calls[-2:] == ["deactivate", "cleanup"]
    assert "RuntimeError: stuck" in capfd.readouterr().err


def test_an_unexpected_exception_is_logged_with_its_traceback(ros, capfd):
    node = ros.add(Recorder(ros, fail={"activate": RuntimeError("boom")}))
    assert not node.autostart()
    assert not node.running
    assert node.state == "unconfigured"
    assert "RuntimeError: boom" in capfd.readouterr().err


# Time and names.


def test_time_that_goes_back_is_told_and_timers_go_on(ros, capfd):
    node = ros.add(Recorder(ros, parameter_overrides=[Parameter("use_sim_time", value=True)]))
    ticks = []
    undo = ExitStack()
    node.start_housekeeping(0.02, lambda: ticks.append(1), undo)
    clock = ros.node().create_publisher(Clock, "/clock", QoSProfile(depth=10))
    ros.wait_for(lambda: clock.get_subscription_count())

    def tell(second):
        message = Clock()
        message.clock.sec = second
        clock.publish(message)
        ros.wait_for(lambda: node.get_clock().now().nanoseconds == second * 10**9, f"clock at {second}")

    tell(100)
    tell(130)
    assert "went back" not in capfd.readouterr().err
    tell(10)
    assert "the clock went back by 120.0 s" in capfd.readouterr().err
    before = len(ticks)
    ros.wait_for(lambda: len(ticks) > before + 2, "timer after the jump")
    undo.close()


def test_a_remapped_image_is_remapped_with_its_transports(ros):
    node = ros.add(Recorder(ros, namespace="robot", cli_args=["--ros-args", "-r", "color/image_raw:=/cam/rgb"]))
    assert node.transport_topic("color/image_raw", "raw") == "color/image_raw"
    assert node.transport_topic("color/image_raw", "compressed") == "/cam/rgb/compressed"
    assert node.transport_topic("depth/image_raw", "compressedDepth") == "/robot/depth/image_raw/compressedDepth"


def test_a_remapped_transport_wins(ros):
    remap = ["--ros-args", "-r", "color/image_raw/compressed:=/jpeg"]
    node = ros.add(Recorder(ros, cli_args=remap))
    assert node.transport_topic("color/image_raw", "compressed") == "/jpeg"


# Without a base model.


@pytest.fixture
def waiting(ros, tmp_path, monkeypatch):
    """A node that waits for a base model, the file where it looks, and what /diagnostics have told, which grows."""
    monkeypatch.setattr(node_base, "LOOK_AGAIN_S", 0.05)
    file = tmp_path / "base.safetensors"
    told = []
    ros.node().create_subscription(DiagnosticArray, "/diagnostics", lambda m: told.extend(m.status), 10)
    node = ros.add(Recorder(ros, fail={"configure": BaseModelMissing("run this and copy that", file)}))
    assert node.autostart()
    return node, file, told


def test_without_a_base_model_it_says_so_in_diagnostics_and_starts_when_the_file_is_there(ros, waiting):
    node, file, told = waiting
    assert node.state == "unconfigured"
    status = ros.wait_for(lambda: told and told[-1])
    assert status.level == DiagnosticStatus.ERROR
    assert status.message == "unconfigured: run this and copy that"
    assert {v.key: v.value for v in status.values}["state"] == "unconfigured"
    node.fail = {}
    assert node.calls.count("configure") == 1  # not before the file is there
    file.touch()
    ros.wait_for(lambda: node.running)
    assert [p for p in node.publishers if "diagnostics" in p.topic_name] == []


@pytest.mark.parametrize("error", [S4NetError("base.safetensors is cut off"), OSError("is cut off")])
def test_a_base_model_that_cannot_be_used_is_told_and_looked_at_again_once_it_has_changed(ros, waiting, error):
    node, file, told = waiting
    node.fail = {"configure": error}
    file.write_bytes(b"half")
    ros.wait_for(lambda: told and "is cut off" in told[-1].message, "the error in /diagnostics")
    assert told[-1].level == DiagnosticStatus.ERROR
    count = len(told)
    ros.wait_for(lambda: len(told) > count, "it goes on")
    assert node.calls.count("configure") == 2  # once for this file, not each time that it is looked at
    node.fail = {}
    file.write_bytes(b"the whole")
    ros.wait_for(lambda: node.running)
    assert [p for p in node.publishers if "diagnostics" in p.topic_name] == []


def test_a_base_model_that_is_being_copied_is_not_tried(tmp_path):
    file = tmp_path / "base.safetensors"
    looks = node_base._Looks(file)
    assert not looks.new()
    for size in (1, 2, 3):
        file.write_bytes(size * b"x")
        assert not looks.new()
    assert [looks.new(), looks.new()] == [True, False]
    file.unlink()
    assert not looks.new()
    file.write_bytes(b"xxxx")
    assert [looks.new(), looks.new()] == [False, True]


def test_with_a_lifecycle_manager_it_only_says_so(ros, tmp_path, monkeypatch):
    monkeypatch.setattr(node_base, "LOOK_AGAIN_S", 0.05)
    file = tmp_path / "base.safetensors"
    file.touch()
    given = [Parameter("autostart", value=False)]
    node = ros.add(Recorder(ros, fail={"configure": BaseModelMissing("copy that", file)}, parameter_overrides=given))
    node.trigger_configure()
    assert [p for p in node.publishers if "diagnostics" in p.topic_name]
    assert not [timer for timer in node.timers if timer.timer_period_ns < 1e9]
    node.fail = {}
    node.trigger_configure()
    assert node.state == "inactive"


# The process.

PROGRAM = """
import gc
import logging
import sys
import threading
import time
from s4net_ros.node_base import S4NetNode, run
from pathlib import Path
from s4net_core.errors import BaseModelMissing, S4NetError

class Node(S4NetNode):
    def configure(self, undo):
        if self.settings.seed == 1:
            raise S4NetError("seed 1 brings bad luck")
        if self.settings.seed == 4:
            raise BaseModelMissing("copy a file", Path("/nowhere"))
        if self.settings.seed == 3:
            print("configuring", flush=True)
            time.sleep(1000)
    def activate(self, configured, undo):
        undo.callback(self.deactivated)
        if self.settings.seed == 5:
            undo.callback(threading.Thread(target=self.log_beyond_the_end).start)
        self.warned = False
        self.start_housekeeping(0.01, self.tick, undo)
        print("active", flush=True)
        self.ticks = 0
    def tick(self):
        self.ticks += 1
        if self.settings.seed == 2 and self.ticks == 1:
            raise RuntimeError("in a callback")
        if self.ticks == 3:
            print("ticking", flush=True)
        if self.settings.seed == 5 and not self.warned and self.count_subscribers("/rosout"):
            self.warned = True
            threading.Thread(target=self.log_as_the_library).start()
    def log_as_the_library(self):
        library = logging.getLogger("s4net_core.learning")
        library.info("version %d is read", 5)
        library.warning("version %d is left out", 6)
    def log_beyond_the_end(self):
        for _ in range(1000):
            logging.getLogger("s4net_core").error("too late")
            time.sleep(0.001)
    def deactivated(self):
        print("deactivated", gc.get_freeze_count() > 10_000, flush=True)

logging.basicConfig(format="%(message)s")  # as the `s4net` command, which runs the cockpit
sys.exit(run(lambda: Node("program"), sys.argv))
"""


PROMPT_S = 10.0
"""A signal is heeded within a second; this machine may be busy."""


@pytest.fixture
def start(spawn):
    return lambda *parameters: spawn("-c", PROGRAM, "--ros-args", *(part for p in parameters for part in ("-p", p)))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_in_order_with_exit_code_0(start, number):
    process = start()
    assert [process.stdout.readline() for _ in range(2)] == ["active\n", "ticking\n"]
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "deactivated True\n"), err  # no long pauses of garbage collection
    assert "Traceback" not in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_at_once_while_it_loads(start, number):
    process = start("seed:=3")
    assert process.stdout.readline() == "configuring\n"
    process.send_signal(number)
    _, err = process.communicate(timeout=PROMPT_S)
    assert process.returncode == -number
    assert "Traceback" not in err


def test_a_signal_ends_it_while_a_lifecycle_manager_configures_it(ros, start):
    process = start("seed:=3", "autostart:=false")
    client = ros.node("manager").create_client(ChangeState, "program/change_state")
    assert client.wait_for_service(60)
    client.call_async(ChangeState.Request(transition=Transition(id=Transition.TRANSITION_CONFIGURE)))
    assert process.stdout.readline() == "configuring\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(PROMPT_S) == -signal.SIGINT


def test_an_error_in_a_callback_is_logged_and_the_node_goes_on(start):
    process = start("seed:=2")
    assert [process.stdout.readline() for _ in range(2)] == ["active\n", "ticking\n"]
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "RuntimeError: in a callback" in err


def test_it_says_why_it_cannot_start(start):
    process = start("seed:=1")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "seed 1 brings bad luck" in err


def test_without_a_base_model_the_process_stays_and_ends_in_order(ros, start):
    told = []
    ros.node().create_subscription(DiagnosticArray, "/diagnostics", told.append, 10)
    process = start("seed:=4")
    assert "cannot configure: copy a file" in process.stderr.readline()
    ros.wait_for(lambda: told)
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert (process.returncode, "Traceback" in err) == (0, False)


def test_what_the_library_logs_is_logged_once_by_the_node_and_by_nobody_after_its_end(ros, start):
    told = []
    ros.node().create_subscription(Log, "/rosout", told.append, qos_profile_rosout_default)
    process = start("seed:=5")
    ros.wait_for(lambda: [m for m in told if "left out" in m.msg])
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0
    lines = [(m.name, m.level, m.msg) for m in told if m.msg.startswith("version")]
    assert lines == [("program", INFO, "version 5 is read"), ("program", WARN, "version 6 is left out")]
    (line,) = (line for line in err.splitlines() if "left out" in line)
    assert re.fullmatch(r"\[WARN\] \[[0-9.]+\] \[program\]: version 6 is left out", line)
    assert err.count("too late") - 1000 in (0, 1)  # one on its way when the node ends may be told by it and by Python
    assert err.splitlines()[-1] == "too late"  # Python's own way, when there is no node any more
    assert "Traceback" not in err


def test_a_bad_parameter_ends_it_without_a_traceback(start):
    process = start("learner.min_overlap:=3.0")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "learner.min_overlap = 3.0" in err
    assert "Traceback" not in err


def test_a_plain_settings_file_is_read_and_parameters_win_over_it(ros, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("seed: 7\nlearner: {source_batch: 2}\n")
    given = ["--ros-args", "-p", f"settings_file:={file}", "-p", "seed:=8"]
    node = ros.add(Recorder(ros, cli_args=given))
    assert (node.settings.seed, node.settings.learner.source_batch) == (8, 2)
    assert node.get_parameter("learner.source_batch").value == 2


def test_a_misspelt_setting_is_told_with_the_name_of_its_file(ros, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("learner: {learning_rat: 1e-4}\n")
    with pytest.raises(SettingsError, match=rf"{file}.*learning_rat.*did you mean learner\.learning_rate"):
        Recorder(ros, cli_args=["--ros-args", "-p", f"settings_file:={file}"])


def test_a_second_signal_at_whatever_moment_of_the_first_ends_it_too(spawn):
    """Launch and the terminal both send SIGINT; `threading.Event.set` inside of itself waited for ever."""
    process = spawn(str(Path(__file__).with_name("interrupted.py")), "node")
    out, err = process.communicate(timeout=80.0)
    assert process.returncode == 0, err
    assert int(out) >= 1
