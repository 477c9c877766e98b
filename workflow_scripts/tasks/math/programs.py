"""Programs within an answer: where they stand, and what the policy sees of their output."""

import re
from typing import Any

PROGRAM = re.compile(r"```python\n(.*?)```", re.DOTALL)
OUTPUT = re.compile(r"(?<=```output)\n.*?```\n?", re.DOTALL)  # what the environment writes after "```output"


def shown(result: dict[str, Any]) -> str:
    """Return a program's output as the policy sees it: what it printed, and its error's last line."""
    error = f"\n{result['error']}" if result["error"] else ""
    return (result["output"].rstrip("\n") + error).strip("\n")
