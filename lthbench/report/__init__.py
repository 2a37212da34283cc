"""Leaderboards from the runs' JSONs: every number on a page is in a file. No torch in here."""
