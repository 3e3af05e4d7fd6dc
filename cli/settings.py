"""The settings, loaded when a command runs: what reads them takes longer to load than --help."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from schemas.settings import Settings


def load_settings(**given: Any) -> Settings:
    """The environment's settings, those of ``given`` in their place.  Raises InvalidSettings."""
    from schemas.settings import load_settings as load

    return load(**given)


def environment_name(field: str) -> str:
    """The environment variable of a setting."""
    from schemas.settings import environment_name as name

    return name(field)
