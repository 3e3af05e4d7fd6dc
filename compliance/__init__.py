"""Judgement: a scan, and the one before it, become a Report."""
