"""Rewrite a pickle of another program, from stdin to stdout, in the plain form of core/pickles.py.

This process can do little harm. It refuses every name but those of NumPy's arrays, which stand for functions of our
own, and its memory and time are bounded by the size of the pickle. Values that stand in several places are written in
each of them, so that a pickle whose parts refer to each other without end reaches the bounds here, not in a stage.
"""

import argparse
import io
import resource
import sys
from typing import Any

import numpy as np

from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.pickles import NUMPY, PlainUnpickler, Stand, array, dump

MEMORY = 1 << 30, 64  # bytes, and bytes for each byte of the pickle
SECONDS = 10, 2e-6


class PendingArray:
    """An array of protocol 4 or older: NumPy makes it empty and tells its contents later."""

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, is_fortran, data = state
        self.array = array(data, kind, shape, "F" if is_fortran else "C")

    def __reduce_ex__(self, protocol: Any) -> Any:
        return np.ascontiguousarray(self.array).__reduce_ex__(protocol)


# As protocols 0 to 3 write them.
BUILTINS = {"set": Stand(set), "frozenset": Stand(frozenset), "bytes": Stand(lambda: b"")}


class ForeignUnpickler(PlainUnpickler):
    """Reads arrays and numbers of every protocol."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("numpy", "ndarray"):
            return Stand()  # a name only
        if (module, name) == ("_codecs", "encode"):  # how Python 3 writes bytes in protocols 0 to 2
            return Stand(encode)
        if module in ("builtins", "__builtin__") and name in BUILTINS:
            return BUILTINS[name]
        if module.rpartition(".")[0] in NUMPY and name == "_reconstruct":
            return Stand(lambda kind, shape, code: PendingArray())
        return super().find_class(module, name)


def encode(text: Any, encoding: Any) -> bytes:
    """Return bytes that were written as text."""
    if not isinstance(text, str) or encoding != "latin1":
        raise BadInput("refers to _codecs.encode in a way that pickle does not")
    return text.encode("latin1")


def main() -> int:
    command = "python -m workflow_scripts.core.foreign_pickles"
    kept_lines = argparse.RawDescriptionHelpFormatter
    argparse.ArgumentParser(command, description=__doc__, formatter_class=kept_lines).parse_args()

    data = sys.stdin.buffer.read()
    memory = int(MEMORY[0] + MEMORY[1] * len(data))
    seconds = int(SECONDS[0] + SECONDS[1] * len(data))
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))

    try:
        plain = io.BytesIO()
        dump(ForeignUnpickler(io.BytesIO(data)).load(), plain)
    except BadInput as error:
        print(error, file=sys.stderr)
        return 1
    except MemoryError:
        print("it takes more memory than a file of its size should", file=sys.stderr)
        return 1
    except RecursionError:
        print("its values contain each other, or are nested too deeply", file=sys.stderr)
        return 1
    except Exception as error:
        print(f"not a readable pickle ({error})", file=sys.stderr)
        return 1

    sys.stdout.buffer.write(plain.getbuffer())
    return 0


if __name__ == "__main__":
    sys.exit(main())
