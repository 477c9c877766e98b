"""An external service runs programs of other languages, over real HTTP, and its faults are no wrong answers."""

import json

import pytest
import yaml

from tests.harness import REPOSITORY
from tests.tasks.code.sandbox_service import Service
from workflow_scripts import tasks
from workflow_scripts.config.layout import Run
from workflow_scripts.config.load import ConfigError, load
from workflow_scripts.core.errors import BadInput
from workflow_scripts.tasks.code import service as adapter
from workflow_scripts.tasks.code.wing import Wing
from workflow_scripts.tasks.defaults import EnvironmentOptions

DOUBLE = "read n\necho $((n * 2))\n"
TESTS = [json.dumps({"stdin": "4\n", "stdout": "8\n"}), json.dumps({"stdin": "50\n", "stdout": "100\n"})]


@pytest.fixture
def service():
    with Service() as running:
        yield running


def grade(service, protocol: str, program: str, language: str = "bash", tests: list[str] = TESTS) -> dict:
    """Return the grade of an answer whose program the service runs."""
    settings = {
        "language": language,
        "service": {"protocol": protocol, "version": "*"},
        "limits": {"cpu_seconds": 1, "wall_seconds": 2},
    }
    grading = tasks.load("code", "Grading", settings)
    running = {"url": service.url, "concurrency": 2, "timeout": 30}
    grading.prepare(EnvironmentOptions(endpoints={"service": running}))
    answer = {"answer": f"```{language}\n{program}```", "reference": tests}
    return grading.grade(answer, lambda program: pytest.fail("it ran here"))


PROTOCOLS = pytest.mark.parametrize("protocol", ["piston", "sandboxfusion"])


@PROTOCOLS
@pytest.mark.parametrize(
    ("program", "passed", "failure"),
    [
        (DOUBLE, 1, None),
        ("read n\necho $((n + 4))\n", 0.5, "it printed '54\\n'"),
        (DOUBLE + "exit 3\n", 0, "exit status 3"),
        (DOUBLE + "sleep 30\n", 0, None),
        ("not compiled\n", 0, "it does not compile: line 1: oops"),
    ],
)
def test_programs_are_judged_by_what_the_service_says_they_print(service, protocol, program, passed, failure):
    graded = grade(service, protocol, program)

    assert graded["passed"] == passed
    assert failure is None or failure in graded["failure"]
    assert "8" not in {request["stdin"].strip() for _, request in service.requests}
    assert not any("stdout" in request for _, request in service.requests)  # what is expected stays here


@PROTOCOLS
def test_the_request_is_that_of_the_protocol(service, protocol):
    grade(service, protocol, DOUBLE, tests=TESTS[:1])
    [(path, body)] = service.requests

    if protocol == "piston":
        assert path == "/api/v2/execute"
        assert (body["language"], body["version"], body["files"]) == ("bash", "*", [{"content": DOUBLE}])
        assert (body["run_timeout"], body["stdin"]) == (2000, "4\n")
    else:
        assert path == "/run_code"
        assert (body["language"], body["code"], body["stdin"], body["run_timeout"]) == ("bash", DOUBLE, "4\n", 2)


@PROTOCOLS
def test_a_service_that_is_overloaded_is_asked_again(service, protocol):
    service.failures = [503, 429]

    assert grade(service, protocol, DOUBLE)["passed"] == 1
    assert len(service.requests) == 4


def test_a_service_that_fails_stops_the_stage(service):
    with pytest.raises(adapter.ServiceFault, match="no space left"):
        grade(service, "sandboxfusion", "the service breaks\n", tests=TESTS[:1])
    assert len(service.requests) == adapter.ATTEMPTS


def test_wrong_settings_are_told(service):
    with pytest.raises(BadInput, match=r"answered 400.*runtime is unknown.*check the protocol"):
        grade(service, "piston", DOUBLE, language="cobol")
    with pytest.raises(BadInput, match=r"'assert add.*not given by stdin"):
        grade(service, "piston", DOUBLE, tests=["assert add(1, 2) == 3"])


def code_config(section: dict) -> dict:
    """Return the config of CodeRL with this section `code`."""
    return yaml.safe_load((REPOSITORY / "recipes/code.yaml").read_text()) | {"code": section}


def test_the_config_passes_on_what_determines_results_and_how_the_service_is_called():
    section = {"language": "bash", "service": {"protocol": "piston", "url": "http://localhost:2000"}}
    cfg = load(code_config(section))
    wing = Wing(cfg, Run(cfg))

    assert wing.settings("grade") == {"language": "bash", "service": {"protocol": "piston"}}
    assert wing.endpoints("grade")["service"]["url"] == "http://localhost:2000"
    assert wing.settings("generate") == {}
    usual = load(code_config({}))
    assert Wing(usual, Run(usual)).settings("grade") == {}  # so that finished grades stay valid


def test_another_language_needs_a_service():
    with pytest.raises(ConfigError, match=r"code\.language: 'cpp' programs need a service"):
        load(code_config({"language": "cpp"}))
