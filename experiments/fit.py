"""`python -m experiments.fit`: another name of `phdme fit`."""

from phdme_jax.forecasting.fit import main

if __name__ == "__main__":
    raise SystemExit(main())
