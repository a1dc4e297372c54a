"""Generative models of fields that obey known equations."""
