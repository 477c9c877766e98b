"""Pickles of builtin types and NumPy arrays, read through an unpickler that refuses every other global."""

import io
import pickle
from pathlib import Path
from typing import Any

from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import replacing

# Every global that a pickle of builtin types and NumPy arrays refers to, under NumPy 1 and 2.
ALLOWED_GLOBALS = {
    (f"{package}.{module}", name)
    for package in ("numpy.core", "numpy._core")
    for module, name in (
        ("multiarray", "_reconstruct"),
        ("multiarray", "scalar"),
        ("numeric", "_frombuffer"),
    )
} | {("numpy", "ndarray"), ("numpy", "dtype")}


class RestrictedUnpickler(pickle.Unpickler):
    """Reads builtin types and NumPy arrays only: a pickle from elsewhere is data, not code."""

    def find_class(self, module: str, name: str):
        if (module, name) not in ALLOWED_GLOBALS:
            raise BadInput(f"refers to {module}.{name}; only builtin types and NumPy arrays are read from pickles")

        return super().find_class(module, name)


def write_pickle(path: str | Path, value) -> None:
    """Write `value` so that equal values give equal bytes: without a memo, object identity leaves no trace."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        pickler = pickle.Pickler(file, protocol=5)
        pickler.fast = True
        pickler.dump(value)


def read_pickle(path: str | Path) -> Any:
    """Read builtin types and NumPy arrays. Raise BadInput, with the file and the global, for anything else."""
    try:
        return RestrictedUnpickler(io.BytesIO(Path(path).read_bytes())).load()
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from None
    except (pickle.UnpicklingError, EOFError, AttributeError, ValueError, IndexError) as error:
        raise BadInput(f"{path}: not a readable pickle ({error})") from None
