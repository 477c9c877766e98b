"""The config section `code`."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from pydantic import PositiveFloat, PositiveInt

from workflow_scripts.config.sections import Section, Url
from workflow_scripts.config.task_section import TaskSection

if TYPE_CHECKING:
    from workflow_scripts.config.load import Config


class Limits(Section):
    """Limits of a program in each of its tests."""

    cpu_seconds: PositiveInt = 5  # of computing
    wall_seconds: PositiveInt = 20  # until the test ends
    memory_mb: PositiveInt = 1024  # of the process


class Service(Section):
    """An external service that runs programs, for languages other than Python."""

    protocol: Literal["piston", "sandboxfusion"]  # which service it is
    url: Url  # of the service, such as http://localhost:2000; no result depends on it
    version: str = "*"  # of the language (Piston)
    concurrency: PositiveInt = 8  # requests at a time; no result depends on it
    timeout: PositiveFloat = 120  # seconds until a request is tried again; no result depends on it


class Settings(TaskSection):
    """Settings for how programs are tested."""

    # all: the reward is 1 if the program passes all tests, else 0. share: it is the share of tests that it passes.
    credit: Literal["all", "share"] = "all"
    limits: Limits = Limits()  # per test
    # The language of the answers, as their code blocks name it. Others than Python need a service, and tests by stdin
    # and stdout.
    language: str = "python"
    service: Service | None = None  # null: programs run in the sandbox

    def faults(self, cfg: "Config") -> Iterator[str]:
        if self.language != "python" and self.service is None:
            yield f"code.language: {self.language!r} programs need a service that runs them; give code.service"
