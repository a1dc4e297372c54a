"""Run the benchmarks: python -m benchmarks.run [--only NAME ...] [--out FILE]."""

import argparse
from pathlib import Path

import jax

from benchmarks.cases import CASES
from benchmarks.harness import append
from phdme_jax.app.command import path
from phdme_jax.app.streams import tolerant_streams


@tolerant_streams()
def main() -> None:
    """Run the chosen cases in float64, print a line each, append them to the file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=tuple(CASES), default=tuple(CASES), help="cases to run")
    parser.add_argument("--out", type=path, default=Path("runs/benchmarks.jsonl"), help="JSONL file to append to")
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    print(f"{'case':12} {'part':40} {'compile':>9} {'median':>10} {'quartiles':>21} {'processor':>10}")
    for name in arguments.only:
        for row in CASES[name]():
            append(arguments.out, row)
            compiled = f"{row['compile_seconds']:8.2f}s" if row["compile_seconds"] is not None else ""
            low, high = row["quartiles"]
            limit = f" limit {row['limit']:g}s" if "limit" in row else ""
            over = " EXCEEDED" if row["median"] > row.get("limit", row["median"]) else ""
            print(
                f"{row['case']:12} {row['part']:40} {compiled:>9} {row['median']:9.4f}s {low:9.4f}s-{high:9.4f}s "
                f"{row['processor_median']:9.4f}s{limit}{over}",
                flush=True,
            )
    print(f"details in {arguments.out}; load average {row['load_average']:.1f} on {row['processors']} processors")


if __name__ == "__main__":
    main()
