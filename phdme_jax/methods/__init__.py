"""Floor 2: where the wings meet. Adding a method is one file and one line in `phdme_jax.methods.table`."""
