"""Commands whose modules are loaded when they are called: ``--help`` needs a line of each alone.

Loading all of them, and having Typer read their options, takes three times as long
as printing the help does.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup


class Lazy(NamedTuple):
    """A command by its place, ``module:function`` or ``module:app``, with its line in the help."""

    name: str
    place: str
    line: str
    example: str | None = None


class Stub(TyperCommand):
    """Stands in a list of commands for one that is not loaded."""

    def __init__(self, lazy: Lazy) -> None:
        super().__init__(lazy.name, help=lazy.line)
        self._lazy = lazy

    def load(self) -> Any:
        """The command itself."""
        module, _, attribute = self._lazy.place.partition(":")
        target = getattr(import_module(module), attribute)
        if isinstance(target, typer.Typer):
            group = typer.main.get_group(target)
            group.name = self.name
            return group
        alone = typer.Typer(add_completion=False)
        alone.command(self.name, epilog=self._lazy.example)(target)
        return typer.main.get_command(alone)


def lazily(commands: Sequence[Lazy]) -> type[TyperGroup]:
    """A group that has these commands beside its own."""

    class Commands(TyperGroup):
        """The front door's commands."""

        def __init__(self, **given: Any) -> None:
            super().__init__(**given)
            for lazy in commands:
                self.add_command(Stub(lazy))

        def resolve_command(self, ctx: Any, args: list[str]) -> Any:
            """Load what is called."""
            name, command, rest = super().resolve_command(ctx, args)
            return name, command.load() if isinstance(command, Stub) else command, rest

    return Commands
