"""Run the measurements of rollouts; see the package's description."""

import argparse

from benchmarks.rollouts import feeding, mismatch, programs, results

PARTS = {"programs": programs.measure, "mismatch": mismatch.measure, "feeding": feeding.measure}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts to run (default: all)")
    args = parser.parse_args()

    for part in args.only:
        results.publish(PARTS[part]())


if __name__ == "__main__":
    main()
