"""Languages: one catalogue each, with the dates and numbers that go with it."""
