"""The form has the settings of the command line, and takes no files from elsewhere."""

import shlex
from pathlib import Path

import pytest

from zeroshift.errors import ZeroshiftError
from zeroshift.methods.configure import default_config, flat, settings
from zeroshift.methods.registry import METHODS
from zeroshift.report.command import command_line
from zeroshift.studio.engine.form import MAIN, config_from_form, form_fields
from zeroshift.studio.engine.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "runs")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("generator", ["miniature", "miniature-diffusion"])
def test_the_form_has_all_settings_and_its_defaults_change_nothing(
    workspace: Workspace, generator: str, method: str
) -> None:
    fields = form_fields(generator, method)
    listed = {one.name for one in settings(default_config(generator, method=method))}
    assert {field.name for field in fields} == listed - {"target", "source", "generator", "method", "family", "device"}
    assert set(MAIN) <= {field.name for field in fields}
    assert all(field.doc for field in fields)
    values = {field.name: field.default for field in fields}
    config = config_from_form(workspace, generator, method, "photo", "zombie", values)
    expected = {**flat(default_config(generator, method=method)), "target": "zombie", "source": "photo"}
    assert flat(config) == expected


def test_values_of_every_kind_are_read(workspace: Workspace) -> None:
    values = {
        "seed": 3, "adapt.steps": 7, "adapt.lr": "0.5e-3", "adapt.lr_final": "", "adapt.betas": "0.1, 0.9",
        "adapt.layers": "all", "adapt.clamp_images": True, "adapt.noise_mode": "none", "adapt.num_layers": "2",
    }  # fmt: skip
    config = config_from_form(workspace, "miniature", "ipl", " photo ", " a red robot ", values)
    assert (config.seed, config.adapt.steps, config.adapt.lr, config.adapt.lr_final) == (3, 7, 0.0005, None)
    assert (config.adapt.betas, config.adapt.layers, config.adapt.clamp_images) == ((0.1, 0.9), ("all",), True)
    assert (config.adapt.noise_mode, config.adapt.num_layers) == ("none", 2)
    assert (config.source, config.target) == ("photo", "a red robot")


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"adapt.lr": "fast"}, "adapt.lr is 'fast'; it must be a number"),
        ({"adapt.steps": "2.5"}, "adapt.steps is 2.5"),
        ({"adapt.steps": 0}, "adapt.steps"),
        ({"adapt.noise_mode": "loud"}, "adapt.noise_mode is 'loud'"),
        ({"nothing": 1}, "no setting 'nothing'"),
        ({"encoders": "/etc/passwd"}, "outside the folders"),
        ({"encoders": "ViT-B-32//etc/passwd"}, "outside the folders"),
        ({"adapt.identity_network": "face:/etc/passwd"}, "outside the folders"),
        ({"adapt.layers": "../../secret"}, "outside the folders"),
    ],
)
def test_invalid_values_are_refused(workspace: Workspace, values: dict[str, object], sentence: str) -> None:
    with pytest.raises(ZeroshiftError, match=sentence):
        config_from_form(workspace, "miniature", "ipl", "photo", "zombie", values)


@pytest.mark.parametrize("generator", ["os:getcwd", "/etc/passwd", "../x.pkl", "google/ddpm-unknown", ""])
def test_only_listed_generators_are_adapted(workspace: Workspace, generator: str) -> None:
    with pytest.raises(ZeroshiftError, match="none of the generators of this studio"):
        config_from_form(workspace, generator, "ipl", "photo", "zombie", {})


def test_files_in_chosen_folders_are_offered(tiny_generator: Path, tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "runs", [tiny_generator.parent])
    assert str(tiny_generator) in [name for _, name in workspace.generators()]
    workspace.require_allowed(str(tiny_generator), "encoders")


@pytest.mark.parametrize("name", ["../x", "/etc", ".hidden", "a/b", "", "x" * 200, "a\0b", "..", 7])
def test_names_of_runs_stay_in_their_folder(workspace: Workspace, name: str) -> None:
    with pytest.raises(ZeroshiftError, match="no name of a run"):
        workspace.folder(name)


@pytest.mark.parametrize("target", ["--help", "-x", "<script>alert(1)</script>", "it's; rm -rf /", "Ä ö 猫"])
def test_the_command_of_a_run_keeps_any_label(workspace: Workspace, target: str) -> None:
    config = config_from_form(workspace, "miniature", "nada", "photo", target, {"adapt.layers": "all"})
    words = shlex.split(command_line(config, Path("runs/x")))
    given = [word.partition("=")[2] for word in words if word.startswith("--target=")]
    assert given == [target] if target.startswith("-") else target in words
