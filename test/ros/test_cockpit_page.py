"""The cockpit's page in headless Chromium: pictures, curves, a button, and a reload."""

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("s4net_ros.msg")
pytest.importorskip("selenium", reason="selenium is not installed: run `make test`, or pip install selenium")

from cockpit_graph import HEIGHT, WIDTH, Adaptation, Camera, cockpit_node, segmentation_node
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By

PIXELS = """
    const canvas = document.getElementById(arguments[0]);
    const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
    return [canvas.width, canvas.height, Array.from(data.filter((_, i) => i % 4 < 3))];
"""


def text(chrome: Chrome, id: str) -> str:
    return chrome.find_element(By.ID, id).text


def data(chrome: Chrome, id: str, name: str) -> int:
    return int(chrome.find_element(By.ID, id).get_attribute(f"data-{name}") or 0)


def test_a_person_sees_the_robot_learn_and_rolls_back(ros: Any, checkpoint: Path, chromium: Chrome) -> None:
    labels, adaptation = segmentation_node(ros, checkpoint), Adaptation(ros, checkpoint)
    Camera(ros)
    cockpit = cockpit_node(ros)
    assert cockpit.autostart()
    chromium.get(f"http://127.0.0.1:{cockpit.settings.cockpit.port}/")

    # Pictures: of the camera's size, not blank, and they change.
    ros.wait_for(lambda: "%" in text(chromium, "changed"), "labels of both networks")
    first = {name: chromium.execute_script(PIXELS, name) for name in ("color", "before", "after", "changes")}
    for name, (width, height, values) in first.items():
        assert (width, height) == (WIDTH, HEIGHT), name
        assert max(values) - min(values) > 30, name
    ros.wait_for(lambda: chromium.execute_script(PIXELS, "color") != first["color"], "another picture")
    assert text(chromium, "changed") == "0.0 %"
    assert len(chromium.find_elements(By.CSS_SELECTOR, "#classes tr")) >= 1

    # The slider uncovers one network's labels or the other's.
    slide = "const s = document.getElementById('slider'); s.value = 20; s.dispatchEvent(new Event('input'));"
    chromium.execute_script(slide)
    assert chromium.find_element(By.ID, "before").value_of_css_property("clip-path") == "inset(0px 80% 0px 0px)"

    # A curve grows; keyframes, drops with their remedy, and nodes are there.
    points = data(chromium, "curves", "points")
    ros.wait_for(lambda: data(chromium, "curves", "points") > points > 0, "a curve that grows")
    ros.wait_for(lambda: data(chromium, "map", "keyframes") == 2, "keyframes")
    assert "stream.fixed_frame" in text(chromium, "drops")
    ros.wait_for(lambda: "labelling" in text(chromium, "nodes"), "diagnostics")

    # The button changes the version that the adaptation node reports.
    assert text(chromium, "version") == "2"
    chromium.find_element(By.CSS_SELECTOR, "[data-do=rollback]").click()
    ros.wait_for(lambda: adaptation.version == 1, "a roll-back")
    ros.wait_for(lambda: text(chromium, "version") == "1", "the version on the page")
    assert text(chromium, "action") == "rollback: rollback is done"

    # A page that reloads goes on with the curves of before.
    before = data(chromium, "curves", "points")
    chromium.refresh()
    ros.wait_for(lambda: data(chromium, "curves", "points") > before, "the curves go on")
    ros.wait_for(lambda: "%" in text(chromium, "changed"), "pictures after the reload")

    # A page that is left lets everything go.
    chromium.get("about:blank")
    ros.wait_for(lambda: not labels.count_subscribers("segmentation/mask"), "no subscription")
    assert [entry["message"] for entry in chromium.get_log("browser") if entry["level"] == "SEVERE"] == []
