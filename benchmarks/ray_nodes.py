"""Trials of a benchmark on a Ray cluster of two nodes on this machine: spread, speed, and what a lost node does.

    python benchmarks/ray_nodes.py --out nodes        # about 5 minutes on two cores

The same trials run in the local pool, on a cluster of one node, of two nodes, and of two nodes of which one is killed
while it trains. Each node has one core, so it runs one trial at a time. Adapted generators and measures must be equal,
bit for bit. Printed are the seconds of each way, and the nodes that the trials began on.
"""

import dataclasses
import functools
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
import tyro
from ray.cluster_utils import Cluster
from rich.console import Console
from rich.table import Table

from zeroshift.benchmark.executors import Executor, TrialJob, run_shared
from zeroshift.benchmark.plan import GeneratorPlan, GeneratorTrial, parse_pair
from zeroshift.benchmark.processes import LocalPool
from zeroshift.benchmark.ray_executor import RayExecutor
from zeroshift.benchmark.trials import finished_records, run_trials, work
from zeroshift.benchmark.variants import Variant

TARGETS = ("zombie", "robot", "pencil sketch", "alien", "clown", "elf", "cartoon", "mosaic")
COMPARED = ("variant", "target", "seed", "provenance", "evaluated", "measures", "source", "truth", "left_out")


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What to run."""

    out: Path
    """Folder of the trials; a new one."""
    targets: int = 6
    """Trials of NADA on the miniature StyleGAN2, one per target; at most 8."""
    steps: int = 24
    """Steps of each trial."""
    pack: int = 1
    """Trials in a pack."""
    kill_at: int = 12
    """Step of its first trial at which the second node is killed."""


def run_noted(plan: GeneratorPlan, trials: Sequence[GeneratorTrial]) -> list[str | None]:
    """`run_trials`, after a note of the node."""
    with open(plan.out / "nodes.jsonl", "a", encoding="utf-8") as file:
        node = ray.get_runtime_context().get_node_id() if ray.is_initialized() else "local"
        file.write(json.dumps({"node": node, "trials": [str(trial) for trial in trials]}) + "\n")
    return run_trials(plan, trials)


@contextmanager
def cluster_of(nodes: int) -> Iterator[tuple[Cluster, list[Any]]]:
    """A cluster of nodes with one core each; the head has none."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        yield cluster, [cluster.add_node(num_cpus=1) for _ in range(nodes)]
    finally:
        cluster.shutdown()


def make_plan(arguments: Arguments, name: str) -> GeneratorPlan:
    """The trials of one way."""
    return GeneratorPlan(
        arguments.out / name,
        tuple(parse_pair("miniature", target) for target in TARGETS[: arguments.targets]),
        (Variant("nada", {"method": "nada"}),),
        metrics=("scs",),
        num=16,
        changes={"adapt.steps": arguments.steps, "checkpoint_every": 4, "preview_every": 0, "device": "cpu"},
    )


def run_all(plan: GeneratorPlan, executor: Executor, pack: int) -> float:
    """Runs all trials; returns the seconds."""
    plan.out.mkdir(parents=True)
    shared = work(plan)
    job: TrialJob[GeneratorTrial] = dataclasses.replace(shared.job, run=functools.partial(run_noted, plan))
    began = time.perf_counter()
    run_shared(dataclasses.replace(shared, job=job), executor, plan.out, pack=pack).require_success()
    return time.perf_counter() - began


def kill_when(reached: Callable[[], bool], kill: Callable[[], object]) -> threading.Thread:
    """Waits in a thread until something is reached, and then kills."""

    def wait() -> None:
        while not reached():
            time.sleep(0.2)
        kill()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def notes(plan: GeneratorPlan) -> list[dict[str, Any]]:
    """The packs in the order in which they began, with their nodes."""
    path = plan.out / "nodes.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def steps_on(plan: GeneratorPlan, node: str) -> int:
    """Logged steps of the first trial that began on a node."""
    for note in notes(plan):
        if note["node"] == node:
            trial = next(trial for trial in plan.trials() if str(trial) == note["trials"][0])
            log = plan.folder(trial) / "metrics.jsonl"
            return len(log.read_text().splitlines()) if log.exists() else 0
    return 0


def results(plan: GeneratorPlan) -> list[tuple[dict[str, Any], bytes]]:
    """Measures and bytes of the adapted generator of each trial."""
    records = [{name: record[name] for name in COMPARED} for record in finished_records(plan)]
    files = [(plan.folder(trial) / "generator.safetensors").read_bytes() for trial in plan.trials()]
    return list(zip(records, files, strict=True))


def main(arguments: Arguments) -> None:
    """Runs all ways, compares their results and prints a table."""
    os.environ |= {"RAY_worker_niceness": "0", "RAY_memory_monitor_refresh_ms": "0"}  # others use this machine, too
    console = Console()
    table = Table("way", "seconds", "nodes of the trials as they began", "equal results")
    plans = {name: make_plan(arguments, name) for name in ("local", "one node", "two nodes", "a lost node")}
    seconds = run_all(plans["local"], LocalPool(1), arguments.pack)
    expected = results(plans["local"])
    table.add_row("local pool, 1 process", f"{seconds:.0f}", "", "")
    for name, count in (("one node", 1), ("two nodes", 2), ("a lost node", 2)):
        plan = plans[name]
        with cluster_of(count) as (cluster, nodes):
            names = [node.node_id for node in nodes]
            if name == "a lost node":
                kill_when(
                    lambda plan=plan, names=names: steps_on(plan, names[1]) >= arguments.kill_at,
                    functools.partial(cluster.remove_node, nodes[1], allow_graceful=False),
                )
            seconds = run_all(plan, RayExecutor(cluster.address), arguments.pack)
        began = " ".join(str(1 + names.index(note["node"])) for note in notes(plan))
        table.add_row(name, f"{seconds:.0f}", began, "yes" if results(plan) == expected else "NO")
    console.print(table)


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
