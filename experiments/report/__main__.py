"""`python -m experiments.report RUN_FOLDER` rebuilds the page of a run; with `--pages`, those of finished studies."""

import sys

from phdme_jax.app import page


def main(arguments: list[str]) -> int:
    """Rebuilds a page, or all of them; returns the exit code."""
    if arguments[:1] == ["--pages"]:
        from experiments.report import pages

        return pages.main(arguments[1:])
    return page.main(arguments, "python -m experiments.report")


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
