"""Constraints while and after sampling; nothing is trained."""
