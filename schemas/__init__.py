"""What travels: events, scans, reports, notifications, runs, settings, the error tree."""
