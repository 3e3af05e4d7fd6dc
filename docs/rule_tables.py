"""The rules' own page: its prose is written by hand, its tables come from the shipped packs."""

from __future__ import annotations

import re
from pathlib import Path

from compliance.rules import Rule, RulePack, known_packs, read_pack, version_order

BEGIN = "<!-- rules: made by make docs from compliance/packs -->\n"
END = "<!-- rules: end -->\n"


def rules_page(page: Path) -> str:
    """The page with the tables between its two marks made anew.

    Raises ValueError for a page without the marks.
    """
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    if not after:
        raise ValueError(f"{page.name} has lost a mark of its tables: {BEGIN}{END}")
    return before + BEGIN + _tables() + END + after


def _tables() -> str:
    packs: dict[str, list[RulePack]] = {}
    for path in sorted(known_packs().values(), key=lambda path: version_order(path.stem)):
        pack = read_pack(path)
        packs.setdefault(pack.id, []).append(pack)
    return "".join(_table(packs[pack_id]) for pack_id in sorted(packs))


def _table(versions: list[RulePack]) -> str:
    """The newest version; ``versions`` are all of one pack, oldest first."""
    since: dict[str, str] = {}
    for pack in versions:
        for rule in pack.rules:
            since.setdefault(rule.id, pack.version)
    newest = versions[-1]
    head = (
        f"\n## {newest.id} {newest.version}\n\n{newest.title}\n\n"
        "| rule | severity | what it finds | source | scope | since |\n|---|---|---|---|---|---|\n"
    )
    return head + "".join(map(_row, newest.rules, (since[rule.id] for rule in newest.rules))) + "\n"


def _row(rule: Rule, since: str) -> str:
    source = f"[{_cell(rule.source)}]({rule.source_url})" if rule.source_url else _cell(rule.source)
    cells = (
        f"`{rule.id}`",
        rule.severity,
        _cell(rule.title),
        source,
        _cell(rule.scope or "–"),
        since,
    )
    return f"| {' | '.join(cells)} |\n"


def _cell(text: str) -> str:
    return re.sub(r"([|\[\]<>*_`])", r"\\\1", text)
