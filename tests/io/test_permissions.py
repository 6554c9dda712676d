"""Sentences about missing permissions, in a child process that has none of root's, and about links to themselves."""

import subprocess
import sys
from pathlib import Path

import pytest

from zeroshift.cli.main import main
from zeroshift.errors import ZeroshiftError
from zeroshift.io.checksums import load_state
from zeroshift.io.owned_folder import require_owned_folder

PROGRAM = """
import sys
from pathlib import Path
from tests.campaigns.privileges import drop_capabilities
from zeroshift.errors import ZeroshiftError
from zeroshift.io.atomic import disk_errors
from zeroshift.io.outputs import require_writable

drop_capabilities()
folder = Path(sys.argv[1])
try:
    if sys.argv[2] == "write":
        require_writable(folder / "new" / "newer")
    else:
        with disk_errors(folder.parent):
            (folder / "file").read_bytes()
except ZeroshiftError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="gives up capabilities of Linux")
@pytest.mark.parametrize(
    ("mode", "what", "sentence"),
    [
        (0o555, "write", "No permission to write {folder}/new/newer."),
        (0, "read", "No permission to reach {folder}/file."),
    ],
)
def test_the_sentence_names_what_was_refused(tmp_path: Path, mode: int, what: str, sentence: str) -> None:
    folder = tmp_path / "locked"
    folder.mkdir()
    (folder / "file").touch()
    folder.chmod(mode)
    command = [sys.executable, "-c", PROGRAM, str(folder), what]
    root = Path(__file__).parents[2]
    result = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    folder.chmod(0o755)
    assert result.stdout.startswith(sentence.format(folder=folder))
    assert [path.name for path in folder.iterdir()] == ["file"]


def test_a_state_that_may_not_be_read_is_not_called_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: Path, *_: object) -> None:
        raise PermissionError(13, "Permission denied", str(name))

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(ZeroshiftError, match="No permission to read"):
        load_state(tmp_path / "last.pt")


def test_links_to_themselves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "loop").symlink_to("loop")
    assert main(["evaluate", str(tmp_path / "loop")]) == 1
    assert "is not a run folder" in " ".join(capsys.readouterr().err.split())
    pipeline = tmp_path / "pipeline"
    pipeline.mkdir()
    (pipeline / "weights").symlink_to("weights")
    (pipeline / "index.json").write_text('{"_zeroshift_files": {"weights": ["0"]}}')
    with pytest.raises(ZeroshiftError, match="not as zeroshift has written them"):
        require_owned_folder(pipeline, "index.json")
