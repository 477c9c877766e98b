"""Questions with tests."""

from collections.abc import Iterator
from typing import Any

from workflow_scripts.core.records import Prompt
from workflow_scripts.tasks import defaults


class Prompts(defaults.Prompts):
    """Questions from a file; the reference is a list of assert statements. AceCode-87K has them as `test_cases`."""

    def read(self, source: dict[str, Any], split: str, seed: int) -> Iterator[Prompt]:
        for prompt in defaults.file_prompts(source, split):
            tests = prompt["reference"]
            has_tests = isinstance(tests, list) and tests and all(isinstance(test, str) for test in tests)
            prompt["reference"] = tests if has_tests else None
            yield prompt
