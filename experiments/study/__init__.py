"""The machinery of a study: its record, the loop, the command line."""
