"""Test how stages end, and what the last line of a log says about it."""

import subprocess

import pytest

from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.running import cli
from workflow_scripts.core.running.deadline import OutOfTime
from workflow_scripts.core.running.status import HOPELESS, read_status, with_status


def raise_(error: Exception):
    raise error


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (BadInput("x.json: no rows"), 65, "error: x.json: no rows"),
        (FileNotFoundError(2, "No such file", "x.json"), 65, "error: there is no file x.json"),
        (ModuleNotFoundError("No module named 'deepspeed'", name="deepspeed"), 65, "'deepspeed' is missing"),
        (OutOfTime("train: time is nearly up"), 75, "time is nearly up"),
    ],
)
def test_a_stage_ends_with_a_sentence_and_a_status(error, status, message, capsys):
    with pytest.raises(SystemExit) as end:
        cli.run(lambda: raise_(error))

    assert end.value.code == status
    assert message in capsys.readouterr().err
    assert (status in HOPELESS) == (status == 65)


def test_an_error_that_nobody_foresaw_keeps_its_traceback():
    with pytest.raises(FileNotFoundError):  # of a library, which says more than the name of a file
        cli.run(lambda: raise_(FileNotFoundError("cannot find the requested files")))
    with pytest.raises(RuntimeError):
        cli.run(lambda: raise_(RuntimeError("x")))


@pytest.mark.parametrize(
    ("command", "status"), [("exit 65", 65), ("true", None), ("no-such-program", 127), ("kill -9 $$", 137)]
)
def test_the_last_line_of_a_log_is_the_status_of_a_failure(command, status, tmp_path):
    log = tmp_path / "stage.log"
    shell = with_status(f"bash -c {command!r}").replace("{log}", str(log)).replace("{{", "{").replace("}}", "}")
    ended = subprocess.run(["bash", "-c", f"set -euo pipefail; {shell}"], capture_output=True)

    assert ended.returncode == (status or 0)
    assert read_status(log) == status
    assert read_status(tmp_path / "none.log") is None
