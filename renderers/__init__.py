"""Report → bytes: one file for each format, a plain dict as registry, no I/O, no clock."""
