"""Write the pages of the documentation's site into a folder, from which mkdocs builds it (`make docs`).

    python -m docs.tools.write_site
    .venv-docs/bin/mkdocs build --strict

The pages are those of `docs/`, the README, and the other documents of the repository. The reference is generated from
the config's schema and from each stage's --help. A link to a file of the repository that is no document, such as a
recipe, leads to a page that shows the file. A link to nothing is an error.
"""

import os
import re
import shutil
import sys
from pathlib import Path

from docs.tools import reference

REPOSITORY = Path(__file__).resolve().parents[2]
OUTPUT = REPOSITORY / ".site"
ELSEWHERE = {  # documents outside of docs/ → their pages
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "LICENSE": "license.md",
    "recipes/README.md": "recipes/index.md",
    "benchmarks/RESULTS.md": "measurements.md",
}
LINK = re.compile(r"(!?\[[^\]]*\]\()([^)\s]+)(\))")
LANGUAGES = {".py": "python", ".yaml": "yaml", ".smk": "python", ".sh": "bash", ".txt": "text"}


class Site:
    """The pages of the site, written into a folder."""

    def __init__(self, output: Path):
        self.output = output
        self.faults: list[str] = []
        self.shown: set[Path] = set()  # files and folders of the repository that have a page because of a link

    def write(self) -> None:
        """Write all pages."""
        shutil.rmtree(self.output, ignore_errors=True)

        for path in sorted((REPOSITORY / "docs").rglob("*")):
            below = path.relative_to(REPOSITORY / "docs")
            if path.suffix == ".md":
                self.write_document(path, str(below))
            elif path.is_file() and below.parts[0] != "tools":
                self.copy(path, str(below))
        for source, page in ELSEWHERE.items():
            if source.endswith(".md"):
                self.write_document(REPOSITORY / source, page)

        for page, text in reference.pages().items():
            self.put(page, text)

    # ------------------------------------------------------------ pages

    def put(self, page: str, text: str) -> None:
        path = self.output / page
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def copy(self, path: Path, page: str) -> None:
        (self.output / page).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, self.output / page)

    def write_document(self, source: Path, page: str) -> None:
        """Write a document with links that lead to pages of the site."""
        is_code = False
        lines = []

        for number, line in enumerate(source.read_text().splitlines(), 1):
            if line.lstrip().startswith("```"):
                is_code = not is_code
            lines.append(line if is_code else self.with_links(line, source, page, number))

        self.put(page, "\n".join(lines) + "\n")

    def with_links(self, line: str, source: Path, page: str, number: int) -> str:
        """Return a line of a document with links as its page needs them."""
        where = f"{source.relative_to(REPOSITORY)}, line {number}"

        def changed(match: re.Match) -> str:
            return match[1] + self.target(source, page, match[2], where) + match[3]

        return LINK.sub(changed, line)

    def target(self, source: Path, page: str, link: str, where: str) -> str:
        """Return a link of a document as its page needs it."""
        name, hash_sign, anchor = link.partition("#")
        if re.match(r"[a-z]+:", link) or not name:
            return link

        path = (source.parent / name).resolve()
        if not path.exists() or not path.is_relative_to(REPOSITORY):
            self.faults.append(f"{where}: {link} leads to nothing")
            return link
        return os.path.relpath(self.page_of(path), Path(page).parent) + hash_sign + anchor

    def page_of(self, path: Path) -> str:
        """Return the page of a file or folder of the repository. Write it, if it is no document."""
        name = str(path.relative_to(REPOSITORY))
        if name in ELSEWHERE:
            page = ELSEWHERE[name]
        elif name.startswith("docs/"):
            return name.removeprefix("docs/")
        elif path.suffix in (".svg", ".png"):
            page = f"images/{name}"
            self.copy(path, page)
            return page
        else:
            page = f"source/{name}/index.md" if path.is_dir() else f"source/{name}.md"

        if path not in self.shown and path.suffix != ".md":
            self.shown.add(path)
            self.put(page, listing(path) if path.is_dir() else contents(path))
        return page


def contents(path: Path) -> str:
    """Return a page that shows a file."""
    text = path.read_text()
    longest = max((len(match) for match in re.findall(r"`{3,}", text)), default=2)
    fence = "`" * (longest + 1)
    language = LANGUAGES.get(path.suffix, "text")
    return f"# {path.relative_to(REPOSITORY)}\n\n{fence}{language}\n{text}\n{fence}\n"


def listing(path: Path) -> str:
    """Return a page that lists a folder, with the first line of each file's docstring."""
    lines = [f"# {path.relative_to(REPOSITORY)}/", ""]
    for file in sorted(path.glob("*.py")):
        first = re.match(r'"""(.*)', file.read_text())
        lines.append(f"- `{file.name}`: {first[1].removesuffix(chr(34) * 3) if first else ''}")
    return "\n".join(lines) + "\n"


def main() -> None:
    site = Site(OUTPUT)
    site.write()
    if site.faults:
        sys.exit("\n".join(site.faults))


if __name__ == "__main__":
    main()
