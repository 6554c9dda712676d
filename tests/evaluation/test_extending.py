"""Measures and networks of other packages: by decorator, by entry point, and as in docs/extending/measure.md."""

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.helpers.evaluated_runs import make_run
from zeroshift import RunFolder, evaluate
from zeroshift.cli.main import main
from zeroshift.errors import ZeroshiftError
from zeroshift.evaluation.compare import compare, headings
from zeroshift.evaluation.metrics.features import Features
from zeroshift.evaluation.metrics.registry import MEASURES, Measure, measure
from zeroshift.evaluation.results import read_results
from zeroshift.networks.base import FeatureNetwork
from zeroshift.networks.registry import NETWORKS, load_network

PAGE = Path(__file__).parents[2] / "docs" / "extending" / "measure.md"


@pytest.fixture
def run(tiny_generator: Path, tmp_path: Path) -> RunFolder:
    return make_run(tiny_generator, tmp_path / "run")


@pytest.fixture(autouse=True)
def _restore_registries(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for registry in (MEASURES, NETWORKS):
        monkeypatch.setattr(registry, "_loaded", dict(registry._loaded))
    yield
    load_network.cache_clear()


def edge_density(features: Features) -> tuple[float, float]:
    return float(features.target.mean()), float(features.target.std())


def test_a_decorated_function_is_a_measure_with_its_own_defaults(run: RunFolder) -> None:
    made = measure("edge-density", needs="edges", network="sobel", better="lower", samples=20)(edge_density)
    assert MEASURES["edge-density"] is made
    assert list(MEASURES)[-1] == "edge-density"
    (result,) = evaluate(run, ["edge-density"]).results
    assert (result.protocol, result.samples, result.network, result.better) == ("edge_density", 20, "sobel", "lower")
    assert result.value is not None
    assert result.spread is not None
    assert read_results(run) == [result]
    assert headings(compare([(run, [result])])[0]) == ["edge-density ↓ (sobel)"]


def test_a_name_is_unique_but_a_definition_may_be_repeated() -> None:
    register = measure("edge-density", needs="edges", network="sobel", better="lower")
    register(edge_density)
    register(edge_density)
    with pytest.raises(ZeroshiftError, match="already a measure 'edge-density'"):
        register(lambda features: 0.0)
    with pytest.raises(ZeroshiftError, match="already a measure 'fid'"):
        measure("fid", needs="edges", network="sobel", better="lower")(edge_density)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"sides": ("source",)}, "reads 'target' and any of"),
        ({"sides": ("target", "truth")}, "reads 'target' and any of"),
        ({"better": "up"}, "'higher' or 'lower'"),
        ({"samples": 0}, "at least 1 sample"),
    ],
)
def test_contradicting_fields_are_refused(fields: dict[str, object], sentence: str) -> None:
    valid = {"needs": "edges", "network": "sobel", "sides": ("target",), "samples": 20, "better": "lower"}
    with pytest.raises(ZeroshiftError, match=sentence):
        Measure(edge_density, **{**valid, **fields})


def test_measures_and_networks_of_an_installed_package_are_listed_and_used(
    run: RunFolder, example_package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", "--help"]) == 0
    page = " ".join(capsys.readouterr().out.split())
    assert re.search(r"Measures: fid, kid, .*, id, color-shift\.", page)
    assert re.search(r"Networks: inception, .*mean-color", page)
    assert main(["evaluate", str(run.path), "--metrics", "color-shift", "--num", "12"]) == 0
    assert "color_shift" in capsys.readouterr().out
    (result,) = read_results(run)
    assert (result.measure, result.network, result.protocol) == ("color-shift", "mean-color", "color_shift")
    report = run.report_path.read_text(encoding="utf-8")
    assert "color-shift ↓" in report
    with pytest.raises(ZeroshiftError, match="Did you mean color-shift"):
        evaluate(run, ["color-shfit"], num=12)


def test_measures_of_an_installed_package_are_computed_by_default(
    run: RunFolder, example_package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_downloads(name: str, device: torch.device) -> FeatureNetwork:
        if NETWORKS[name.partition(":")[0]].for_photographs:
            raise ZeroshiftError(f"{name} cannot be downloaded.")
        return load_network(name, device)

    monkeypatch.setattr("zeroshift.evaluation.plan.load_network", without_downloads)
    assert [result.measure for result in evaluate(run, num=12).results] == ["scs", "color-shift"]


def test_results_of_a_removed_package_are_still_read(run: RunFolder) -> None:
    line = '{"measure": "gone", "value": 1.5, "spread": null, "better": "lower", "protocol": "p", "network": "n", '
    line += '"samples": 10, "references": 0, "reference": "", "seed": 0, "truncation": 0.7, "time": "now"}\n'
    (run.path / "metrics-gone.jsonl").write_text(line)
    evaluate(run, ["scs"], num=10)
    assert [(result.measure, result.truncation_psi) for result in read_results(run)] == [("scs", 0.7), ("gone", 0.7)]


def test_results_of_version_0_1_are_read(run: RunFolder) -> None:
    (result,) = evaluate(run, ["scs"], num=10).results
    file = run.path / "metrics-scs.jsonl"
    file.write_text(file.read_text().replace('"truncation_psi"', '"truncation"'))
    assert read_results(run) == [result]


def test_the_code_of_the_documentation_works(
    tiny_generator: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tiny_generator, tmp_path / "runs" / "disney")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL):
        header = re.match(r"# (\w+)\.py\n", block)
        if header:
            (tmp_path / f"{header[1]}.py").write_text(block, encoding="utf-8")
            monkeypatch.delitem(sys.modules, header[1], raising=False)
            importlib.import_module(header[1])
        else:
            exec(compile(block, str(PAGE), "exec"), {})
    (result,) = read_results(run)
    assert (result.measure, result.network, result.samples) == ("mean-shift", "mean-color", 100)
    assert float(capsys.readouterr().out) == result.value
    for name, target in re.findall(r'^([\w-]+) = "(.*)"$', PAGE.read_text(encoding="utf-8"), re.MULTILINE):
        module, _, attribute = target.partition(":")
        registry = MEASURES if name in MEASURES else NETWORKS
        assert getattr(sys.modules[module], attribute) is registry[name]


def test_a_network_without_weights_has_a_device(example_package: Path) -> None:
    assert load_network("mean-color").device == torch.device("cpu")
