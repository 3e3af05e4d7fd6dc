"""A message on its way to the outside: e-mail, webhook, Slack, Apprise."""
