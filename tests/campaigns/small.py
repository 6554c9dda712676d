"""A small part of every campaign, with the same inputs: `python -m tests.campaigns.small --seed 0`."""

import argparse
import sys

from tests.campaigns import disk, kill, permissions
from tests.campaigns.commands import prepared
from tests.campaigns.table import report, show


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    seed = parser.parse_args().seed
    with prepared("small") as workspace:
        tallies = kill.campaign(workspace, 4, seed, ("adapt", "generate"), show)
        killed = report(kill.table(tallies), [problem for tally in tallies.values() for problem in tally.problems])
        filled = disk.run_campaign(workspace, 1, seed, ("export, diffusers",))
        results = permissions.campaign(workspace, seed, 1, ("input", "output", "name"), 6, show)
        refused = report(permissions.table(results), permissions.problems_in(results))
    return killed | filled | refused


if __name__ == "__main__":
    sys.exit(main())
