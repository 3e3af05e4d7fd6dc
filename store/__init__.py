"""What lasts: the ledger and the artifact store."""
