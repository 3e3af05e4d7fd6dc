"""The error tree: what its picture says, and that its errors travel between processes."""

from __future__ import annotations

import pickle
import re
from typing import Any

import pytest

from schemas import errors
from schemas.errors import (
    ChannelUnavailable,
    DeliveryRejected,
    PermanentError,
    RateLimited,
    ScanheraldError,
    TransientError,
)


def classes_below(root: type[ScanheraldError]) -> list[type[ScanheraldError]]:
    return [one for child in root.__subclasses__() for one in (child, *classes_below(child))]


OURS = [one for one in classes_below(ScanheraldError) if one.__module__ == errors.__name__]
LEAVES = [one for one in OURS if one not in (PermanentError, TransientError)]


def drawn_tree() -> dict[str, str]:
    """Parent by child, read from the indentation of the picture in the module's docstring."""
    parents: dict[str, str] = {}
    path: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"^    ([ │├└─]*)([A-Z]\w+)", line)
        if not match:
            continue
        depth, name = len(match[1]), match[2]
        while path and path[-1][0] >= depth:
            path.pop()
        if path:
            parents[name] = path[-1][1]
        path.append((depth, name))
    return parents


def test_the_drawn_tree_is_the_real_one() -> None:
    real = {one.__name__: base.__name__ for one in OURS for base in one.__bases__}
    assert drawn_tree() == real


@pytest.mark.parametrize("error", LEAVES)
def test_every_error_is_either_permanent_or_transient(error: type[ScanheraldError]) -> None:
    assert issubclass(error, PermanentError) != issubclass(error, TransientError)


@pytest.mark.parametrize("error", [ScanheraldError, *OURS])
def test_every_error_says_what_it_means(error: type[ScanheraldError]) -> None:
    assert error.__doc__


def filled(error: type[ScanheraldError]) -> ScanheraldError:
    """An instance with every field set, as keywords, to something other than its default."""
    fields: dict[str, Any] = {}
    if issubclass(error, TransientError):
        fields |= {"retry_after": 2.5}
    if issubclass(error, (ChannelUnavailable, DeliveryRejected)):
        fields |= {"status_code": 503, "receipt": "busy"}
    return error("it broke", **fields)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("error", [ScanheraldError, *OURS])
def test_every_error_survives_pickling_with_its_fields(
    error: type[ScanheraldError], protocol: int
) -> None:
    before = filled(error)
    after = pickle.loads(pickle.dumps(before, protocol))
    assert type(after) is error
    assert (str(after), after.args) == ("it broke", ("it broke",))
    assert vars(after) == vars(before)


def test_a_transient_error_says_when_to_come_back_only_where_it_was_told() -> None:
    assert TransientError("later").retry_after is None
    assert RateLimited("later", 30.0, 429, "slow down").retry_after == 30.0
