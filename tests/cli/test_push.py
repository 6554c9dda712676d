"""`zeroshift push`: the folder, the upload to a stand-in of the Hub, and the way back."""

import json
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
import yaml

from tests.helpers.evaluated_runs import make_run
from zeroshift.cli.main import main
from zeroshift.generators.checkpoints import catalogue, hub_models
from zeroshift.generators.checkpoints.architectures import architecture_of
from zeroshift.generators.checkpoints.files import load_generator
from zeroshift.io import hub
from zeroshift.methods.config_file import from_json
from zeroshift.methods.configure import default_config
from zeroshift.report.card import _shared_command, without_folders


@pytest.fixture
def run(tiny_generator: Path, tmp_path: Path) -> Path:
    folder = make_run(tiny_generator, tmp_path / "runs" / "zombie").path
    (folder / "metrics-clip.jsonl").write_text("")
    return folder


class Api:
    """The calls of HfApi that matter, on a folder."""

    calls: list[tuple[str, Any]]

    def create_repo(self, repository: str, **options: Any) -> None:
        self.calls.append((repository, options))

    def upload_folder(self, *, repo_id: str, folder_path: Path, commit_message: str) -> None:
        self.calls.append((repo_id, sorted(path.name for path in Path(folder_path).iterdir())))


def test_a_pushed_generator_is_read_back(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    Api.calls = []
    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(hub, "unreachable", lambda address: "")
    assert main(["push", str(run), "me/zombie", "--private"]) == 0
    assert capsys.readouterr().out.strip() == "https://huggingface.co/me/zombie"
    files = ["README.md", "config.json", "generator.safetensors", "zeroshift.json"]
    assert Api.calls == [("me/zombie", {"private": True, "exist_ok": True}), ("me/zombie", files)]

    folder = run / "hub"
    expected = load_generator(run / "generator.safetensors").state_dict()

    def same(name: str | Path) -> bool:
        return all(torch.equal(value, expected[key]) for key, value in load_generator(name).state_dict().items())

    assert same(folder), "as a local folder"
    assert architecture_of(folder) == "stylegan2"
    monkeypatch.setattr(catalogue, "hub_folder", lambda name, *_, **__: folder)
    monkeypatch.setattr(hub_models, "hub_file", lambda name, files: folder / files[0])
    hub_models.hub_architecture.cache_clear()
    with pytest.warns(UserWarning, match="taking it for a model at"):
        assert same("me/zombie")
    assert architecture_of("me/zombie") == "stylegan2"
    assert default_config("me/zombie").family == "stylegan2"
    hub_models.hub_architecture.cache_clear()


def test_the_card_says_what_it_is_and_nothing_about_this_machine(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "shared"
    for _ in range(2):
        assert main(["push", str(run), "me/zombie", "--dry-run", "--out", str(out)]) == 0
    text = (out / "README.md").read_text(encoding="utf-8")
    front = yaml.safe_load(text.split("---")[1])
    assert front["library_name"] == "zeroshift"
    assert "stylegan2" in front["tags"]
    assert 'load_generator("me/zombie")' in text
    assert "zeroshift adapt" in text
    for file in out.iterdir():
        if file.suffix != ".safetensors":
            assert str(tmp_path) not in file.read_text(encoding="utf-8"), file
    config = from_json((out / "config.json").read_text(encoding="utf-8"))
    assert config.target == "zombie"
    assert json.loads((out / "zeroshift.json").read_text())["architecture"] == "stylegan2"


def test_paths_become_names_and_other_words_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets").mkdir()
    (tmp_path / "nets" / "mine.pt").touch()
    settings = {
        "generator": "/home/John Doe/nets/ffhq.pkl", "encoders": ["ViT-B-32/openai", "~/clip.pt"],
        "adapt": {"identity_network": "face:x", "lr": 0.1}, "images": ["nets/mine.pt"], "target": "me/zombie",
    }  # fmt: skip
    assert without_folders(settings) == {
        "generator": "ffhq.pkl", "encoders": ["ViT-B-32/openai", "clip.pt"],
        "adapt": {"identity_network": "face:x", "lr": 0.1}, "images": ["mine.pt"], "target": "me/zombie",
    }  # fmt: skip
    assert _shared_command("zeroshift adapt --generator '/a b/ffhq.pkl' --target 'a b' --out runs/x") == (
        "zeroshift adapt --generator ffhq.pkl --target 'a b' --out runs/x"
    )


def test_what_cannot_be_pushed_is_explained(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise huggingface_hub.errors.LocalTokenNotFoundError("no token")

    def explained(*words: str) -> str:
        capsys.readouterr()
        assert main(["push", *words]) == 1
        return " ".join(capsys.readouterr().err.split())

    assert "no name of a repository" in explained(str(run), "zombie")
    assert "no name of a repository" in explained(str(run), "a/b/c")
    monkeypatch.setattr(hub, "unreachable", lambda address: "no route")
    assert "Nothing was uploaded: the Hugging Face Hub cannot be reached (no route)" in explained(str(run), "me/x")
    monkeypatch.setattr(hub, "unreachable", lambda address: "")
    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", refuse)
    assert "Log in with `hf auth login`" in explained(str(run), "me/x")
    (run / "generator.safetensors").unlink()
    assert "not finished" in explained(str(run), "me/x")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    assert explained(str(run), "me/x", "--out", str(tmp_path / "mine"))
    assert (tmp_path / "mine" / "notes.txt").read_text() == "mine"
