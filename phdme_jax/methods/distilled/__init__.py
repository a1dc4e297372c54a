"""One-step models: students that take a teacher's place in a single call."""
