"""`python -m tests.fuzz`: runs a campaign and prints its results as a Markdown table."""

import argparse
import sys
import time
from collections import Counter
from pathlib import Path


def say(text: str) -> None:
    """Progress, beside the results on the standard output."""
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    """Runs the campaign of the command line. The exit code is 1 if a case ended as it must not."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000, help="number of cases (default: 10000)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the campaign; with the number, it defines a case")
    parser.add_argument("--workers", type=int, default=2, help="child processes (default: 2)")
    parser.add_argument("--seconds", type=float, default=20, help="limit of a case (default: 20)")
    parser.add_argument("--reader", help="cases of this reader only")
    parser.add_argument("--case", type=int, help="repeat this case only")
    parser.add_argument("--keep", type=Path, help="write the files of the repeated case into this new folder")
    parser.add_argument("--all", action="store_true", help="print every case, not only faults")
    parser.add_argument("--list", action="store_true", help="list the readers")
    arguments = parser.parse_args()
    if arguments.keep is not None and arguments.case is None:
        parser.error("--keep needs --case")

    from tests.fuzz import campaign as fuzz
    from tests.fuzz.readers import READERS
    from tests.fuzz.worker import FAULTS

    if arguments.list:
        print("\n".join(READERS))
        return 0
    if arguments.reader is not None and arguments.reader not in READERS:
        parser.error(f"there is no reader {arguments.reader!r}; --list names them")
    cases = fuzz.plan(arguments.cases if arguments.case is None else arguments.case + 1, arguments.reader)
    if arguments.case is not None:
        cases = [one for one in fuzz.plan(arguments.case + 1) if one[0] == arguments.case]
    start, counts = time.monotonic(), Counter[str]()

    def report(case: fuzz.Case, outcome: fuzz.Outcome) -> None:
        counts[outcome.kind] += 1
        if outcome.kind in FAULTS or arguments.all or len(cases) == 1:
            words = (f"case {case[0]}", outcome.reader, outcome.mutation, f"{outcome.kind.upper()}: {outcome.detail}")
            print(" | ".join(words), flush=True)
        if counts.total() % 500 == 0:
            say(f"{counts.total()} of {len(cases)} cases in {time.monotonic() - start:.0f} s: {dict(counts)}")

    keep = None if arguments.keep is None else arguments.keep.absolute()
    with fuzz.prepared(list(dict.fromkeys(reader for _, reader in cases))) as prepared:
        say(f"{len(cases)} cases, seed {arguments.seed}, undamaged files {prepared.digest}")
        start = time.monotonic()
        if keep is not None:
            fuzz.keep(prepared, cases[0], arguments.seed, keep)
        outcomes = fuzz.run(prepared, cases, arguments.seed, arguments.workers, arguments.seconds, report)
    if len(cases) > 1:
        print(f"\n{fuzz.table(dict(sorted(outcomes.items())))}")
    say(f"{len(cases)} cases in {time.monotonic() - start:.0f} s")
    return int(any(outcome.kind in FAULTS for outcome in outcomes.values()))


if __name__ == "__main__":
    sys.exit(main())
