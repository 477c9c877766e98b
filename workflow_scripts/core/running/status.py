"""Exit statuses of stages, and how the driver learns them: the last line of a log names the status of a failed stage.

0        finished
1        an error that nobody foresaw; another attempt may go better
65       input, config or environment have to be mended first (BadInput, a missing package, a missing file)
75       the job's time was nearly up; the same command goes on from there
2, 126, 127   a command line that does not fit, or a program that is not there
above 128     killed by a signal: 137 is SIGKILL, which is how the kernel ends a job that is out of memory
"""

import os
import re
from pathlib import Path

MEND_FIRST_STATUS = os.EX_DATAERR  # 65
HOPELESS = frozenset({2, MEND_FIRST_STATUS, 126, 127})  # statuses that another attempt would meet again
LAST_LINE = re.compile(r"exit status (\d+)")


def with_status(command: str) -> str:
    """Return a shell command with a log `{log}`, whose last line names the exit status if the command fails."""
    told = 'echo "exit status $status" | tee -a {log}'
    return f"{command} 2>&1 | tee {{log}} || {{{{ status=$?; {told}; exit $status; }}}}"


def read_status(log: str | Path) -> int | None:
    """Return the exit status in the last line of a log; None if the stage was killed with its shell, or is not done."""
    try:
        with open(log, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 200))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return None

    match = LAST_LINE.fullmatch(lines[-1]) if lines else None
    return int(match[1]) if match else None
