"""Floor 4: what a person at a terminal sees: commands, progress, the page of a run with its tables and pictures."""
