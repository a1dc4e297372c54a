"""`python -m experiments.forecast`: another name of `phdme forecast`."""

from phdme_jax.forecasting.forecast import main

if __name__ == "__main__":
    raise SystemExit(main())
