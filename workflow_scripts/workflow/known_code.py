"""Keep the tables of code digests between commands, since following all definitions takes a second.

They are kept in `.snakemake/`, together with a digest of all source files of the package. If any file changes, all
tables are computed again.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import read_json, write_json
from workflow_scripts.core.running.code import PACKAGE, Table, code_table

FILE = Path(".snakemake/roundhouse/code.json")


class KnownCode:
    """Tables of code digests by their roots."""

    def __init__(self, file: Path = FILE):
        self.file = file
        self.package = package_digest()
        self.tables: dict[str, Table] = self._read()

    def table(self, roots: Iterable[str]) -> Table:
        """Return the digests of all definitions that the roots reach."""
        roots = list(roots)
        name = " ".join(roots)

        if name not in self.tables:
            self.tables[name] = code_table(*roots)
            self._write()
        return self.tables[name]

    def _read(self) -> dict[str, Table]:
        try:
            stored: Any = read_json(self.file)
        except (OSError, BadInput):  # there is none yet, or it is damaged
            return {}
        return stored["tables"] if stored["package"] == self.package else {}

    def _write(self) -> None:
        try:
            write_json(self.file, {"package": self.package, "tables": self.tables})
        except OSError:  # a folder that may only be read
            return


def package_digest() -> str:
    """Return the digest of the names and bytes of all source files of the package."""
    whole = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        content = path.read_bytes()
        whole.update(f"{path.relative_to(PACKAGE)} {len(content)}\n".encode())
        whole.update(content)
    return whole.hexdigest()
