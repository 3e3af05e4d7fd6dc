"""Alembic's environment: the ledger's schema, revision by revision."""
