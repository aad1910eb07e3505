"""Declares each setting of the core as a parameter, with description, range and read-only flag.

A parameter has the setting's dotted name, e.g. ``learner.learning_rate``. Values are checked by the settings
themselves, so a refused value is answered with the same text as on the command line.
"""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

from s4net_core.config import Leaf, Settings, assign, leaves, with_values
from s4net_core.errors import SettingsError

INT64_MAX = 2**63 - 1
NOT_SETTINGS = ("use_sim_time", "autostart", "settings_file", "start_type_description_service")
"""Parameters, or prefixes of them, that ROS and the node itself declare beside the settings."""


def declare_settings(node: Node, defaults: Settings, live: tuple[str, ...]) -> Settings:
    """Declare every setting as a parameter and keep the live ones up to date.

    Args:
        node: made with ``automatically_declare_parameters_from_overrides=True``, so that values from parameter files
            and the command line can be seen and checked before they are declared with their type (``1`` for ``1.0`` is
            fine).
        defaults: values of parameters that are not set.
        live: settings, or beginnings of their names, that the node reads anew all the time: those of them that may
            change at all can be set while it runs. All others would change nothing, so they are read-only.

    Returns:
        The settings in force. Later changes of live parameters are written into this same object.

    Raises:
        SettingsError: a parameter has the wrong type or lies outside its range.
    """
    known = {leaf.name: leaf for leaf in leaves(defaults)}
    given = {name: node.get_parameter(name).value for name in known if node.has_parameter(name)}
    settings = with_values(defaults, given)
    for name in given:
        node.undeclare_parameter(name)
    node.declare_parameters(
        "",
        [
            (leaf.name, leaf.value, descriptor(replace(leaf, live=leaf.live and leaf.name.startswith(live))))
            for leaf in leaves(settings)
        ],
        ignore_override=True,
    )
    _warn_of_unknown(node, known)
    _follow_changes(node, settings)
    return settings


def descriptor(leaf: Leaf) -> ParameterDescriptor:
    """Descriptor of a setting, as ``ros2 param describe`` shows it."""
    description = ParameterDescriptor(name=leaf.name, description=leaf.help, read_only=not leaf.live)
    if leaf.choices:
        description.additional_constraints = f"One of: {', '.join(leaf.choices)}."
    if leaf.minimum is None and leaf.maximum is None:
        return description
    if leaf.type is int:
        low = -INT64_MAX if leaf.minimum is None else int(leaf.minimum)
        high = INT64_MAX if leaf.maximum is None else int(leaf.maximum)
        description.integer_range = [IntegerRange(from_value=low, to_value=high, step=0)]
    elif leaf.type is float:
        low_f = -sys.float_info.max if leaf.minimum is None else float(leaf.minimum)
        high_f = sys.float_info.max if leaf.maximum is None else float(leaf.maximum)
        description.floating_point_range = [FloatingPointRange(from_value=low_f, to_value=high_f, step=0.0)]
    return description


def _warn_of_unknown(node: Node, known: Iterable[str]) -> None:
    """Log parameters without a setting: a misspelt name would otherwise go unnoticed."""
    names = node.get_parameters_by_prefix("")
    foreign = sorted(name for name in names if name not in set(known) and not name.startswith(NOT_SETTINGS))
    if foreign:
        node.get_logger().warning(f"parameters without effect, no setting has this name: {', '.join(foreign)}")
    if any(name.startswith("qos_overrides.") for name in foreign):
        node.get_logger().warning(
            "qos_overrides are not read: set stream.*_reliability or segmentation.output_reliability"
        )


def _follow_changes(node: Node, settings: Settings) -> None:
    names = {leaf.name for leaf in leaves(settings)}

    def values(changes: Sequence[Parameter]) -> dict[str, Any]:
        return {change.name: change.value for change in changes if change.name in names}

    def check(changes: Sequence[Parameter]) -> SetParametersResult:
        try:
            with_values(settings, values(changes))
        except SettingsError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def apply(changes: Sequence[Parameter]) -> None:
        taken = values(changes)
        assign(settings, taken)
        for name, value in taken.items():
            node.get_logger().info(f"{name} is {value!r} now")

    def check_and_apply(changes: Sequence[Parameter]) -> SetParametersResult:
        result = check(changes)
        if result.successful:
            apply(changes)
        return result

    if hasattr(node, "add_post_set_parameters_callback"):
        node.add_on_set_parameters_callback(check)
        node.add_post_set_parameters_callback(apply)
    else:  # ROS 2 Humble
        node.add_on_set_parameters_callback(check_and_apply)
