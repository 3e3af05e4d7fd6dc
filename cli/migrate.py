"""``scanherald migrate``: the ledger's schema, before whatever needs it is started."""

from __future__ import annotations

from rich.console import Console

from schemas.settings import load_settings


def migrate_command() -> None:
    """Bring the ledger's schema to this release; harmless when it is there already.

    Waits for a database that is away.  Listeners and workers do the same when
    they start, so this is for whoever wants it done, and seen, before.
    """
    from cli.processes import migrate_patiently
    from store.ledger import Ledger
    from tasks.logs import configure_logs

    settings = load_settings()
    configure_logs(settings)
    ledger = Ledger(settings.ledger_url)
    try:
        migrate_patiently(ledger)
        revision, _ = ledger.revisions()
    finally:
        ledger.close()
    Console(highlight=False).print(f"The ledger is at revision {revision}.")
