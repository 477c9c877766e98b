"""Write the conda environments from the requirement files: python envs/write_yaml.py

Snakemake copies an environment's file before it builds the environment, so a line such as `-r requirements.txt` would
not be found. Therefore each .yaml holds the pinned packages themselves. Only the .txt files are edited by hand.

An environment holds what requirements.txt names above its line `# development`, and all that these packages require,
in the versions of constraints.txt. `deepspeed`, `qlora` and `lm-eval` add their own .txt. `vllm` stands alone, and
`lm-eval-vllm` adds to it.
"""

import re
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

FOLDER = Path(__file__).resolve().parent
HEAD = "# Written by envs/write_yaml.py from the .txt files beside it. Build it with `--sdm conda`, or by hand:\n"
ENVIRONMENTS = {  # name → (files with further packages, packages of conda)
    "roundhouse": ([], []),
    "deepspeed": (["deepspeed.txt"], ["cxx-compiler"]),  # DeepSpeed compiles a C++ extension when it starts
    "qlora": (["qlora.txt"], []),
    "lm-eval": (["lm-eval.txt"], []),
}


def requirements(file: str, until: str | None = None) -> list[Requirement]:
    """Return the requirements in a file, up to a line that begins with `until`."""
    listed = []

    for line in (FOLDER / file).read_text().splitlines():
        if until and line.startswith(until):
            break
        if text := re.sub(r"(^|\s)#.*", "", line).strip():
            listed.append(Requirement(text))

    return listed


def with_their_requirements(wanted: list[Requirement]) -> set[str]:
    """Return the names of packages and of all that they require, by the metadata of this Python's packages."""
    names: set[str] = set()
    todo = list(wanted)

    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        if name in names and not requirement.extras:
            continue
        names.add(name)
        try:
            lines = requires(name) or []
        except PackageNotFoundError:
            raise SystemExit(
                f"{name} is not installed in this Python; run envs/write_yaml.py by .venv/bin/python"
            ) from None

        for inner in map(Requirement, lines):
            extras = requirement.extras or {""}
            if inner.marker is None or any(inner.marker.evaluate({"extra": extra}) for extra in extras):
                todo.append(inner)

    return names


def environment(name: str, conda: list[str], pins: list[str]) -> str:
    """Return the text of a conda environment."""
    lines = [f"#   conda env create -f envs/{name}.yaml", f"name: {name}", "channels: [conda-forge]", "dependencies:"]
    lines += [f"  - {package}" for package in ("python=3.11", "pip", *conda)]
    lines += ["  - pip:", *(f"      - {pin}" for pin in pins)]
    return HEAD + "\n".join(lines) + "\n"


def texts() -> dict[str, str]:
    """Return the text of each environment by the name of its file."""
    constraints = {canonicalize_name(pin.name): str(pin) for pin in requirements("constraints.txt")}
    base = with_their_requirements(requirements("requirements.txt", until="# development"))
    base_pins = [pin for name, pin in sorted(constraints.items()) if name in base]
    files = {}

    for name, (further, conda) in ENVIRONMENTS.items():
        pins = base_pins + [str(pin) for file in further for pin in requirements(file)]
        files[f"{name}.yaml"] = environment(name, conda, pins)

    for name in ("vllm", "lm-eval-vllm"):
        further = ["lm-eval.txt", "lm-eval-vllm.txt"] if name == "lm-eval-vllm" else []
        own_pins = {str(pin) for file in further for pin in requirements(file)}
        of_vllm = [str(pin) for pin in requirements("vllm.txt")]
        files[f"{name}.yaml"] = environment(name, [], [*of_vllm, *sorted(own_pins - set(of_vllm))])
    return files


if __name__ == "__main__":
    for name, text in texts().items():
        (FOLDER / name).write_text(text)
