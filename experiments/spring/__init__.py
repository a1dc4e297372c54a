"""The measured spring: its recordings, prior, generator and pictures."""
