"""`python -m experiments.report RUN_FOLDER`: rebuilds the page and the tables of a run."""

from phdme_jax.app.page import main

if __name__ == "__main__":
    raise SystemExit(main())
