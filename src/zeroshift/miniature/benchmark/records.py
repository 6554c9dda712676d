"""The records of trials: their provenance, their files, and the reuse of earlier results.

A finished trial writes a sheet of people (.png) and its measures (.json) to OUT/trials/TARGET/VARIANT. The file name
contains the seed and a hash of the provenance (settings, weights, number of people), so that a second run adds only
missing trials and other settings overwrite nothing. The code is not part of the hash: after changing a method, use
another folder. The images are kept, so that another held-out evaluator requires no new adaptations. The JSON of a page
holds all measures without images; a benchmark can continue from it on another machine.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field

from zeroshift.benchmark.provenance import fingerprint, recorded_settings, same_settings, slug
from zeroshift.errors import ZeroshiftError
from zeroshift.generators.checkpoints.catalogue import resolve
from zeroshift.io.atomic import atomic_write
from zeroshift.io.foreign import matches, read_json
from zeroshift.methods.registry import METHODS
from zeroshift.miniature.benchmark.plan import BenchmarkPlan, Key, Trial
from zeroshift.miniature.benchmark.variants import FITTED
from zeroshift.miniature.networks.encoders import weights_folder

__all__ = [
    "Record", "evaluators", "finished_records", "image_path", "missing_trials", "previous_record", "provenance",
    "read_adapted", "read_previous", "read_record", "record_path", "write_record",
]  # fmt: skip

Record = Mapping[str, Any]

Text = Annotated[str, Field(max_length=1000)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Amount = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0)]


class _Record(BaseModel):
    """What the page reads of a record; further entries are kept."""

    variant: Text
    target: Text
    seed: int = Field(strict=True, ge=0, lt=2**63)
    provenance: Annotated[dict[Text, Any], Field(max_length=1000)]
    machine: Text
    seconds: Amount = 0
    processor_seconds: Amount = 0
    memory: Amount = 0
    packed: bool = False


class _MeasuredRecord(_Record):
    evaluated_by: Annotated[dict[Text, Text], Field(max_length=100)]
    measures: Annotated[dict[Text, Number], Field(max_length=1000)]


# Keys of version 0.1 and before, which `read_previous` still accepts.
_OLD_KEYS = {"row": "variant", "made_with": "provenance", "judged_by": "evaluated_by"}
_OLD_FACTS = {"guide": "guidance_encoder", "judge": "evaluator"}


def provenance(plan: BenchmarkPlan, trial: Trial) -> dict[str, Any]:
    """Everything that the images of a trial depend on: number of people, weights, settings.

    The settings are all those of the method and the generator family, and others if they differ from the defaults.
    Bounds depend on sampling settings only, and fitted generators also on the training steps and the seed.
    """
    facts: dict[str, Any] = {"people": plan.people, "generator": fingerprint(resolve(trial.variant.generator))}
    config = trial.config(plan.changes)
    recorded = recorded_settings(config)
    if not trial.variant.bound:
        facts["guidance_encoder"] = fingerprint(weights_folder() / "guide.safetensors")
        if METHODS[config.method].needs_bridge:
            facts["bridge"] = fingerprint(weights_folder() / "bridge.safetensors")
        return {**facts, "settings": recorded}
    if sampling := {name: value for name, value in recorded.items() if name.startswith("sampling.")}:
        facts["settings"] = sampling
    return {**facts, **({"steps": plan.fit_steps, "seed": trial.seed} if trial.variant in FITTED.values() else {})}


def evaluators() -> dict[str, str]:
    """Fingerprints of the evaluation networks: the held-out evaluator and the factor probe."""
    return {name: fingerprint(weights_folder() / f"{file}.safetensors")
            for name, file in (("evaluator", "judge"), ("probe", "probe"))}  # fmt: skip


def record_path(plan: BenchmarkPlan, trial: Trial) -> Path:
    """The JSON file of a trial."""
    digest = hashlib.sha256(json.dumps(provenance(plan, trial), sort_keys=True).encode()).hexdigest()[:8]
    folder = plan.out / "trials" / slug(trial.target) / slug(trial.variant.name)
    return folder / f"seed{trial.seed}-{digest}.json"


def image_path(plan: BenchmarkPlan, trial: Trial) -> Path:
    """The sheet of people of a trial."""
    return record_path(plan, trial).with_suffix(".png")


def write_record(plan: BenchmarkPlan, trial: Trial, record: Record) -> None:
    """Writes the JSON file of a trial."""
    with atomic_write(record_path(plan, trial)) as temporary:
        temporary.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def read_adapted(plan: BenchmarkPlan, trial: Trial) -> dict[str, Any] | None:
    """The stored record of a trial whose images exist, measured by any network; None if there is none.

    Raises:
        ZeroshiftError: if the file is damaged, or has other values than a record.
    """
    path = record_path(plan, trial)
    if not path.exists() or not path.with_suffix(".png").exists():
        return None
    try:
        record: Any = read_json(path)
        measured = isinstance(record, dict) and {"measures", "evaluated_by"} & set(record)  # written in a second step
        matches(_MeasuredRecord if measured else _Record, record, str(path))
    except ZeroshiftError as error:
        if isinstance(error.__cause__, OSError):
            raise
        raise ZeroshiftError(f"{error} Delete the file, and run the benchmark again.") from error
    checked: dict[str, Any] = record
    return checked


def read_previous(path: Path) -> dict[Key, dict[str, Any]]:
    """The records in the JSON of a page, by variant, target and seed.

    Raises:
        ZeroshiftError: if the file cannot be read, or naming the first record with other values than a page has.
    """
    page = read_json(path)
    records = page.get("trials", page.get("cells")) if isinstance(page, dict) else None
    if not isinstance(records, list):
        raise ZeroshiftError(f"{path} is not the JSON of a benchmark's page: it has no list of trials.")
    previous: dict[Key, dict[str, Any]] = {}
    for index, one in enumerate(records):
        record = _with_present_keys(one) if isinstance(one, dict) else one
        checked = matches(_MeasuredRecord, record, f"{path}: the record trials[{index}]")
        previous[checked.variant, checked.target, checked.seed] = record
    return previous


def _with_present_keys(record: Record) -> dict[str, Any]:
    """A record with the keys of this version."""
    renamed = {_OLD_KEYS.get(key, key): value for key, value in record.items()}
    for name in ("provenance", "evaluated_by"):
        if isinstance(renamed.get(name), Mapping):
            renamed[name] = {_OLD_FACTS.get(key, key): value for key, value in renamed[name].items()}
    return renamed


def read_record(plan: BenchmarkPlan, trial: Trial) -> Record | None:
    """The record of a finished trial (provenance, cost and "measures"), or None if the trial has to run.

    A record counts only if it was measured by the current evaluators.
    """
    record = read_adapted(plan, trial)
    return record if record and record.get("evaluated_by") == evaluators() else previous_record(plan, trial)


def previous_record(plan: BenchmarkPlan, trial: Trial) -> Record | None:
    """The record of a trial in `plan.previous`, if its provenance and evaluators equal the current ones."""
    record = plan.previous.get(trial.key)
    if not record or record.get("evaluated_by") != evaluators():
        return None
    before = dict(record.get("provenance") or {})
    now = json.loads(json.dumps(provenance(plan, trial)))  # JSON turns tuples into lists
    settings, expected = before.pop("settings", {}), now.pop("settings", {})
    same = before == now and same_settings(settings, expected, trial.config(plan.changes))
    return record if same else None


def missing_trials(plan: BenchmarkPlan) -> list[Trial]:
    """The trials that have not run yet."""
    return [trial for trial in plan.trials() if read_record(plan, trial) is None]


def finished_records(plan: BenchmarkPlan) -> list[Record]:
    """The records of all finished trials."""
    return [record for trial in plan.trials() if (record := read_record(plan, trial)) is not None]
