"""Runs the trials of a benchmark as tasks of Ray, on this machine or on a cluster."""

import contextlib
import logging
import os
import socket
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

from zeroshift.benchmark.executors import TrialJob, perform
from zeroshift.benchmark.processes import cores
from zeroshift.errors import ZeroshiftError
from zeroshift.io.foreign import first_line

__all__ = ["RayExecutor"]

One = TypeVar("One")

_ATTEMPTS = 3  # to start Ray, which gives up after 30 seconds: too early for a busy machine


class RayExecutor:
    """Tasks of Ray, one for each pack of trials, in processes of their own.

    Ray repeats the task of a lost worker, also on another machine. All machines need the same version of zeroshift,
    and the folder in which the command was given at the same path.

    Args:
        address: of a running cluster; None: Ray starts on this machine, and ends with the trials.
        cpus: of each pack, which has as many threads.
        gpus: of each pack; may be a fraction. None: 1 if a machine of the cluster has one.
        retries: how often a pack is repeated if its worker is lost.
        limit: packs that run at the same time; None: as many as the cluster takes.

    Raises:
        ZeroshiftError: by `run`, if Ray is not installed, or the cluster cannot be reached.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        cpus: int = 1,
        gpus: float | None = 0,
        retries: int = 3,
        limit: int | None = None,
    ) -> None:
        self._address, self._cpus, self._gpus = address, cpus, gpus
        self._retries, self._limit = retries, limit

    def run(self, job: TrialJob[One], packs: Iterable[Sequence[One]]) -> Iterator[tuple[One, str | None]]:
        """See `Executor.run`."""
        ray = _import_ray()
        with contextlib.redirect_stdout(sys.stderr), _connection(ray, self._address):  # Ray prints what it repeats
            resources = self._resources(ray)
            task = ray.remote(**resources, max_retries=self._retries, max_calls=1)(_perform_in)
            running: dict[Any, Sequence[One]] = {}
            try:
                for pack in packs:
                    running[task.remote(os.getcwd(), job, pack, self._cpus)] = pack
                    if len(running) == self._limit:
                        yield from self._next(ray, running)
                while running:
                    yield from self._next(ray, running)
            finally:
                for reference in running:
                    ray.cancel(reference, force=True)

    def _next(self, ray: Any, running: dict[Any, Sequence[One]]) -> Iterator[tuple[One, str | None]]:
        """Waits for the next task that ends, removes it from `running`, and gives the problems of its trials."""
        (reference,), _ = ray.wait(list(running), num_returns=1)
        pack = running.pop(reference)
        return zip(pack, self._problems(ray, reference, len(pack)), strict=True)

    def _problems(self, ray: Any, reference: Any, count: int) -> Sequence[str | None]:
        try:
            problems: Sequence[str | None] = ray.get(reference)
        except ray.exceptions.RayTaskError as error:  # an error outside the trials
            return [first_line(error.cause)] * count
        except ray.exceptions.RayError as error:
            lost = f"its worker was lost {self._retries + 1} times ({type(error).__name__}: {first_line(error)})"
            return [lost] * count
        return problems

    def _resources(self, ray: Any) -> dict[str, float]:
        """The resources of a trial. Warns if no machine has them: an autoscaling cluster may start one.

        Raises:
            ZeroshiftError: if Ray runs on this machine only, so that the trials would wait forever.
        """
        machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        gpus = min(1, max(one.get("GPU", 0) for one in machines)) if self._gpus is None else self._gpus
        if not any(one.get("CPU", 0) >= self._cpus and one.get("GPU", 0) >= gpus for one in machines):
            text = f"{self._cpus} processor cores and {gpus:g} GPUs of a trial (--cpus-per-task, --gpus-per-task)"
            if self._address is None:
                raise ZeroshiftError(f"This machine does not have the {text}.")
            warnings.warn(f"No machine of the cluster has the {text} now. The trials wait for one.", stacklevel=2)
        return {"num_cpus": self._cpus, "num_gpus": gpus}


def _perform_in(folder: str, job: TrialJob[One], pack: Sequence[One], threads: int) -> Sequence[str | None]:
    """Runs the trials of a pack in the folder of the command, to which their paths are relative."""
    try:
        os.chdir(folder)
    except OSError:
        return [f"the folder {folder} is not on {socket.gethostname()}: all machines must share it"] * len(pack)
    return perform(job, pack, threads)


def _import_ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray would report its use to its makers
    try:
        import ray
    except ImportError as error:
        raise ZeroshiftError("--executor ray needs the package ray: pip install 'zeroshift[ray]'.") from error
    return ray


def _require_server(address: str) -> None:
    """Raises ZeroshiftError if nothing listens at HOST:PORT; Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "/" in host:  # such as auto, or ray://HOST:PORT
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise ZeroshiftError(
            f"There is no Ray cluster at {address} ({first_line(error)}). Start it, or correct --address."
        ) from error


@contextlib.contextmanager
def _connection(ray: Any, address: str | None) -> Iterator[None]:
    """Connects to a cluster, or starts Ray on this machine; ends what it began."""
    if ray.is_initialized():  # by the program that called us
        yield
        return
    if address is not None:
        _require_server(address)
    local = {"num_cpus": cores(), "include_dashboard": False} if address is None else {}
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            ray.init(address=address or "local", log_to_driver=False, logging_level=logging.ERROR, **local)
            break
        except Exception as error:  # Ray raises this type itself
            ray.shutdown()
            if address is not None:
                raise ZeroshiftError(
                    f"The Ray cluster at {address} cannot be reached ({first_line(error)}). Start it, correct "
                    "--address, or give this machine the token of the cluster."
                ) from error
            if attempt == _ATTEMPTS:
                raise ZeroshiftError(f"Ray does not start on this machine ({first_line(error)}).") from error
    try:
        yield
    finally:
        ray.shutdown()
