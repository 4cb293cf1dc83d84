"""docker-compose.yml as Docker Compose reads it: what of the specification this one uses."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
COMPOSE_FILE = ROOT / "docker-compose.yml"
EXAMPLE = ROOT / ".env.example"
ENTRYPOINT = "/app/entrypoint.sh"

_DOLLAR = re.compile(r"\$(?:\$|(\w+)|\{(\w+))")


class MissingError(ValueError):
    """A variable that has to be set is not."""


def interpolate(text: str, variables: Mapping[str, str]) -> str:
    """Put variables in: ``$$``, ``${A}``, ``${A:-else}``, ``${A:+then}`` and ``${A:?why}``, nested, too.

    :raises MissingError: a ``${A:?why}`` is neither set nor other than empty.
    """
    done, rest = "", text
    while found := _DOLLAR.search(rest):
        done, rest = done + rest[: found.start()], rest[found.end() :]
        if found[0] == "$$":
            done += "$"
        elif found[1]:
            done += variables.get(found[1], "")
        else:
            modifier, rest = _to_closing_brace(rest)
            done += _value(found[2], modifier, variables)
    return done + rest


def _to_closing_brace(text: str) -> tuple[str, str]:
    depth = 1
    for position, character in enumerate(text):
        depth += (character == "{") - (character == "}")
        if not depth:
            return text[:position], text[position + 1 :]
    raise ValueError(f"a brace is not closed before {text!r}")


def _value(name: str, modifier: str, variables: Mapping[str, str]) -> str:
    value = variables.get(name, "")
    if modifier.startswith(":+"):
        return interpolate(modifier[2:], variables) if value else ""
    if value or not modifier:
        return value
    if modifier.startswith(":-"):
        return interpolate(modifier[2:], variables)
    if modifier.startswith(":?"):
        raise MissingError(f"required variable {name} is missing a value: {modifier[2:]}")
    raise ValueError(f"${{{name}{modifier}}} is not used in this file so far: teach it to this function")


@dataclass(frozen=True)
class Service:
    """A service with its variables put in."""

    name: str
    definition: Mapping[str, Any]
    environment: Mapping[str, str]

    @property
    def command(self) -> list[str]:
        """What its container runs, the image's entry point included where it is of ours."""
        arguments = _words(self.definition["command"])
        if "entrypoint" in self.definition:
            return _words(self.definition["entrypoint"]) + arguments
        return [ENTRYPOINT, *arguments] if self.definition["image"].startswith("osml-tasks") else arguments

    @property
    def health(self) -> list[str]:
        """The command that asks whether it is well."""
        kind, *arguments = self.definition["healthcheck"]["test"]
        return ["sh", "-c", *arguments] if kind == "CMD-SHELL" else arguments

    @property
    def grace(self) -> float:
        """How long it may take to stop, s."""
        return float(self.definition.get("stop_grace_period", "10s").removesuffix("s"))


def _words(command: str | Sequence[str]) -> list[str]:
    return shlex.split(command) if isinstance(command, str) else [str(part) for part in command]


def services(text: str, variables: Mapping[str, str]) -> dict[str, Service]:
    """All services of a Compose file, those of profiles too, for the variables of a ``.env``."""
    whole = _interpolated(yaml.safe_load(text), variables)
    return {name: _service(name, definition, variables) for name, definition in whole["services"].items()}


def _interpolated(node: Any, variables: Mapping[str, str]) -> Any:
    if isinstance(node, str):
        return interpolate(node, variables)
    if isinstance(node, dict):
        return {key: _interpolated(value, variables) for key, value in node.items()}
    return [_interpolated(value, variables) for value in node] if isinstance(node, list) else node


def _service(name: str, definition: Mapping[str, Any], variables: Mapping[str, str]) -> Service:
    given = definition.get("environment", {})
    # One without a value is handed on if it is set.
    handed_on = {key: variables[key] for key, value in given.items() if value is None and key in variables}
    return Service(name, definition, {key: str(value) for key, value in given.items() if value is not None} | handed_on)


def mentioned(text: str) -> set[str]:
    """Each variable that a Compose file takes from ``.env``."""
    document = yaml.safe_load(text)
    handed_on = {
        key
        for service in document["services"].values()
        for key, value in service.get("environment", {}).items()
        if value is None
    }
    return handed_on | {name for value in _texts(document["services"]) for name in _names(value)}


def _texts(node: Any) -> Iterator[str]:
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict | list):
        for value in node.values() if isinstance(node, dict) else node:
            yield from _texts(value)


def _names(text: str) -> Iterator[str]:
    return (name for name in re.findall(r"\$\$|\$\{?(\w+)", text) if name)


def example(*, with_defaults: bool) -> dict[str, str]:
    """What ``.env.example`` sets, with or without the lines that only show a default."""
    found = re.findall(r"^(#?)([A-Z][A-Z0-9_]*)=(.*)$", EXAMPLE.read_text(), re.MULTILINE)
    return {name: value for hash_sign, name, value in found if with_defaults or not hash_sign}
