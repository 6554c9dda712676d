"""Campaigns against the commands: killed processes, full disks, missing permissions (docs/reliability.md).

Each is a command of its own, with a seed, and prints a table of results:

    python -m tests.campaigns.kill --kills 100 --seed 0
    python -m tests.campaigns.disk --seed 0
    python -m tests.campaigns.permissions --seed 0

The commands of zeroshift run in child processes that are forked from one that has imported everything. They run
`zeroshift.cli.main.main` with the defaults of a new process: signals, capabilities, standard streams.
"""
