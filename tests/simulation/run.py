"""Run the simulation from the command line: `run.py --seeds 2000`, `run.py --seed 17 --trace` to replay one."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

if os.environ.get("PYTHONHASHSEED") != "0":  # the order of sets of texts is a part of what a seed stands for
    os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "PYTHONHASHSEED": "0"})  # noqa: S606 # this program again
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from simulation.planted import BUGS, planted
from simulation.world import simulate


def say(text: str) -> None:
    """Write lines to standard output."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def find_planted(names: list[str], most: int) -> int:
    """Run each planted bug until it is found; write a table of how many seeds that took."""
    missed = 0
    for name in names:
        began, problems, seed = time.monotonic(), list[str](), 0
        with planted(name):
            while not problems and seed < most:
                problems = simulate(seed).problems
                seed += 1
        missed += not problems
        say(f"{seed if problems else 'not found in ' + str(seed):>4} | {name} | {time.monotonic() - began:.1f} s | "
            f"{problems[0][:110] if problems else ''}")
    return int(bool(missed))


def main() -> int:
    """Run seeds; say which failed and why."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--trace", action="store_true")
    parser.add_argument("--planted", nargs="?", const="", metavar="NAME", help="find the planted bugs (of this name)")
    parser.add_argument("--part", type=int, nargs=2, default=(0, 1), metavar=("I", "N"), help="of them the I-th of N parts")
    arguments = parser.parse_args()
    if arguments.planted is not None:
        part, parts = arguments.part
        return find_planted([name for name in BUGS if arguments.planted in name][part::parts], arguments.seeds)
    seeds = [arguments.seed] if arguments.seed is not None else range(arguments.first, arguments.first + arguments.seeds)
    failed, began, seconds = [], time.monotonic(), 0.0
    for seed in seeds:
        report = simulate(seed)
        seconds += report.seconds
        if arguments.trace:
            say("\n".join(report.trace))
        if report.problems:
            failed.append(seed)
            say("\n    ".join((f"seed {seed} ({report.mark}):", *report.problems[:12])))
    say(f"{len(seeds)} seeds, {len(failed)} failed {failed[:50]}, {seconds / 3600:.1f} hours simulated in "
        f"{time.monotonic() - began:.0f} s; last mark {report.mark}, {report.steps} steps")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
