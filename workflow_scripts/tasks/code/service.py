"""Run programs by an external sandbox service, for languages other than Python.

Two protocols are spoken: Piston's (`POST /api/v2/execute`) and SandboxFusion's (`POST /run_code`). The service runs a
program on an input and returns what it printed. The comparison with the expected output is made here, so that the
service never gets it. Tests must be given by stdin and stdout.

A service that does not answer, or answers with an error of its own, stops the stage after some attempts: its faults are
no wrong answers.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import tenacity

from workflow_scripts.core.errors import BadInput
from workflow_scripts.tasks.code.trial import same_output, stdin_test

ATTEMPTS = 5
TRANSIENT = {408, 425, 429, 500, 502, 503, 504}

Outcome = tuple[str, str | None]  # what a program printed, and why it ended early


class ServiceFault(Exception):
    """Raised if the service fails, and not the program."""


def results(
    trials: Sequence[tuple[str, tuple[str, ...]]], service: dict[str, Any], limits: dict[str, int]
) -> list[list[tuple[bool, str | None]]]:
    """Return, for the tests of each program, whether it passed, and if not, why.

    Args:
        trials: programs with their tests.
        service: `protocol`, `url`, `language`, `version`, `concurrency` and `timeout`.
        limits: `cpu_seconds`, `wall_seconds` and `memory_mb` per test.
    """
    runs = []
    for number, (program, tests) in enumerate(trials):
        for test in tests:
            streams = stdin_test(test)
            if streams is None:
                raise BadInput(
                    f"code.service: a service runs programs on inputs, but the test {test!r:.60} is not given by stdin "
                    "and stdout"
                )
            runs.append((number, program, *streams))

    with httpx2.Client(timeout=service["timeout"]) as client, ThreadPoolExecutor(service["concurrency"]) as threads:
        outcomes = threads.map(lambda job: run_program(client, service, limits, job[1], job[2]), runs)
        judged: list[list[tuple[bool, str | None]]] = [[] for _ in trials]
        for (number, _, _, expected), (output, fault) in zip(runs, outcomes):
            passed = fault is None and same_output(output, expected)
            judged[number].append((passed, None if passed else fault or f"it printed {output!r:.100}"))
    return judged


def run_program(
    client: httpx2.Client, service: dict[str, Any], limits: dict[str, int], program: str, stdin: str
) -> Outcome:
    """Return what a program printed on an input, and why it ended early, or None."""
    protocol = PROTOCOLS[service["protocol"]]
    path, body = protocol[0](service, limits, program, stdin)

    @tenacity.retry(
        retry=tenacity.retry_if_exception_type((httpx2.TransportError, ServiceFault)),
        stop=tenacity.stop_after_attempt(ATTEMPTS),
        wait=tenacity.wait_exponential(multiplier=0.2, max=20),
        reraise=True,
    )
    def request() -> Outcome:
        response = client.post(service["url"].rstrip("/") + path, json=body)
        if response.status_code in TRANSIENT:
            raise ServiceFault(f"{service['url']}{path} answered {response.status_code}: {response.text[:200]}")
        if response.status_code != 200:
            raise BadInput(
                f"code.service: {service['url']}{path} answered {response.status_code}: {response.text[:200]}; check "
                f"the protocol, the url and the language {service['language']!r}"
            )
        return protocol[1](response.json(), limits)

    return request()


# ---------------------------------------------------------------- Piston: https://github.com/engineer-man/piston


def piston_request(service: dict[str, Any], limits: dict[str, int], program: str, stdin: str) -> tuple[str, dict]:
    """Return path and body of a request."""
    body = {
        "language": service["language"],
        "version": service["version"],
        "files": [{"content": program}],
        "stdin": stdin,
        "run_timeout": 1000 * limits["wall_seconds"],
        "compile_timeout": 1000 * limits["wall_seconds"],
        "run_cpu_time": 1000 * limits["cpu_seconds"],
        "run_memory_limit": limits["memory_mb"] << 20,
    }
    return "/api/v2/execute", body


def piston_outcome(answer: dict[str, Any], limits: dict[str, int]) -> Outcome:
    """Return the outcome that a response tells."""
    compiled = answer.get("compile")
    if compiled and compiled.get("code"):
        return "", f"it does not compile: {last_line(compiled.get('stderr'))}"

    ran = answer.get("run")
    if not isinstance(ran, dict):
        raise ServiceFault(f"the service answered without `run`: {answer!r:.200}")
    if ran.get("status") == "XX":
        raise ServiceFault(f"the service failed: {ran.get('message')!r:.200}")
    if ran.get("signal"):
        return ran["stdout"], f"died of {ran['signal']}"
    if ran.get("code"):
        return ran["stdout"], f"exit status {ran['code']}: {last_line(ran.get('stderr'))}"
    return ran["stdout"], None


# ---------------------------------------------------------------- SandboxFusion: https://bytedance.github.io/SandboxFusion


def fusion_request(service: dict[str, Any], limits: dict[str, int], program: str, stdin: str) -> tuple[str, dict]:
    """Return path and body of a request."""
    body = {
        "code": program,
        "language": service["language"],
        "stdin": stdin,
        "run_timeout": limits["wall_seconds"],
        "compile_timeout": limits["wall_seconds"],
        "memory_limit_MB": limits["memory_mb"],
    }
    return "/run_code", body


def fusion_outcome(answer: dict[str, Any], limits: dict[str, int]) -> Outcome:
    """Return the outcome that a response tells."""
    if answer.get("status") == "SandboxError":
        raise ServiceFault(f"the service failed: {answer.get('message')!r:.200}")

    compiled = answer.get("compile_result")
    if compiled and (compiled.get("return_code") or compiled["status"] != "Finished"):
        return "", f"it does not compile: {last_line(compiled.get('stderr'))}"

    ran = answer.get("run_result")
    if not isinstance(ran, dict):
        raise ServiceFault(f"the service answered without `run_result`: {answer!r:.200}")
    if ran["status"] == "TimeLimitExceeded":
        return ran.get("stdout") or "", f"took more than {limits['wall_seconds']} s"
    if ran["status"] != "Finished" or ran.get("return_code"):
        return ran.get("stdout") or "", f"exit status {ran.get('return_code')}: {last_line(ran.get('stderr'))}"
    return ran.get("stdout") or "", None


def last_line(text: Any) -> str:
    """Return the last line of an error's text."""
    lines = str(text or "").strip().splitlines()
    return lines[-1][:200] if lines else "no message"


PROTOCOLS = {"piston": (piston_request, piston_outcome), "sandboxfusion": (fusion_request, fusion_outcome)}
