"""Joins ROS 2: rclpy.init, with what it does not say about the environment and the arguments."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import MutableMapping, Sequence
from weakref import WeakKeyDictionary

import rclpy
from rclpy.context import Context
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from qvla_ros.errors import NO_KNOWN_FIX, QvlaError
from qvla_ros.parameters.given import read_arguments
from qvla_ros.resources import share_path
from qvla_ros.ros_environment import (
    PROFILE,
    PROFILE_VARIABLES,
    environment_errors,
    installed_middlewares,
    profile_variable,
)

_arguments: WeakKeyDictionary[Context, list[str]] = WeakKeyDictionary()
_UNREADABLE = re.compile(r"Couldn't parse ([\w ]+): '(.*?)'\. Error: (.*?), at /", re.DOTALL)

_SYNTAX = {
    "override rule": "write -p NAME:=VALUE",
    "remap rule": "write -r FROM:=TO with names of letters, digits and _; __ns:=/arm, __node:=arm",
}


def start_ros(args: Sequence[str] | None = None, context: Context | None = None) -> None:
    """rclpy.init without its signal handlers; sets the Fast DDS profile if no variable names one.

    args: the command line, of this process if None. QvlaError names the variable, the parameter
    file or the argument that keeps ROS from starting.
    """
    given = list(sys.argv[1:] if args is None else args)
    set_profile(os.environ)
    for error in environment_errors(os.environ, installed_middlewares(os.environ)):
        raise error
    read_arguments(given)
    try:
        rclpy.init(args=given, context=context, signal_handler_options=SignalHandlerOptions.NO)
    except RuntimeError as error:  # RCLError, whose class is private to rclpy
        raise refusal(error) from None
    _arguments[context or rclpy.get_default_context()] = given


def make_node(name: str, context: Context) -> Node:
    """A plain node. QvlaError with the middleware's own words if it cannot join the graph."""
    try:
        return Node(name, context=context)
    except RuntimeError as error:
        raise refusal(error) from None


def arguments_of(context: Context) -> list[str]:
    """The command line that `context` was started with; empty if it was not by start_ros."""
    return _arguments.get(context, [])


def set_profile(environment: MutableMapping[str, str]) -> None:
    """Names the profile for large images, as the launch files do, unless transports are chosen."""
    chosen = (*PROFILE_VARIABLES, "FASTDDS_BUILTIN_TRANSPORTS")
    if not any(environment.get(name) for name in chosen):
        variable = profile_variable(environment.get("ROS_DISTRO"))
        environment[variable] = str(share_path(PROFILE))


def refusal(error: RuntimeError) -> QvlaError:
    """What rclpy refused: the argument if it names one; else its own words, without advice."""
    if unreadable := _UNREADABLE.search(str(error)):
        kind, argument, reason = unreadable.groups()
        fix = _SYNTAX.get(kind.removeprefix("parameter "), "")
        return QvlaError(argument, "what ROS cannot read", f"a {kind} ({reason})", fix)
    if type(error).__name__ == "UnknownROSArgsError":
        fix = "take it out, or write it before --ros-args if it is not ROS's"
        return QvlaError("arguments after --ros-args", error, "those of ROS", fix)
    return QvlaError("ROS", error, "that it starts", NO_KNOWN_FIX)
