"""Systems with an energy, which move in time."""
