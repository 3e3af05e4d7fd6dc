"""The formula guard, cell by cell."""

import pytest

from renderers.csv_table import COLUMNS, guard
from schemas.reports import InventoryCookie


@pytest.mark.parametrize(
    "text",
    ["=1", "+1", "-1", "@a", "  =1", "\u3000=1", "\u200b=1", "＝1", "＋1", "－1", "＠a", "﹢1",
     "\tx", "\rx", "\nx", "\x00=1"],
)  # fmt: skip
def test_what_a_spreadsheet_might_run_gets_an_apostrophe(text):
    assert guard(text).startswith("'")


@pytest.mark.parametrize(
    "text", ["", "_ga", "a=b", "a-b", "1+1", "'quoted", "ünder", "中文", "a b"]
)
def test_a_harmless_text_is_left_as_it_is(text):
    assert guard(text) == text


def test_hidden_characters_are_escaped_and_line_breaks_kept():
    assert guard("a\x00b\x1b\x7f\u202ec\n\td") == "a\\x00b\\x1b\\x7f\\u202ec\n\td"


def test_every_field_of_the_inventory_has_a_column():
    assert set(COLUMNS) == set(InventoryCookie.__struct_fields__)
