"""The pages of the documentation's site: they are complete, and no link leads to nothing."""

import re
from pathlib import Path

import pytest
import yaml

from docs.tools import reference
from docs.tools.write_site import Site
from tests.harness import REPOSITORY
from workflow_scripts.config.load import Config
from workflow_scripts.core.running import plugins

FENCE = re.compile(r"^(`{3,}).*?^\1$", re.M | re.S)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Site:
    site = Site(tmp_path_factory.mktemp("site"))
    site.write()
    return site


def pages_of_nav() -> list[str]:
    """Return the pages that the site's navigation names."""
    text = re.sub(r"!!python\S+", "", (REPOSITORY / "mkdocs.yml").read_text())
    nav = yaml.safe_load(text)["nav"]

    def below(item) -> list[str]:
        if isinstance(item, str):
            return [item]
        parts = item if isinstance(item, list) else item.values()
        return [page for part in parts for page in below(part)]

    return below(nav)


def test_no_link_leads_to_nothing(site):
    assert site.faults == []

    for page in site.output.rglob("*.md"):
        text = FENCE.sub("", page.read_text())
        for link in re.findall(r"\]\((?![a-z]+:|#)([^)#\s]+)", text):
            assert (page.parent / link).exists(), f"{page.relative_to(site.output)}: {link}"


def test_a_link_to_nothing_is_named_with_its_line(tmp_path):
    site = Site(tmp_path)
    line = site.with_links("see [this](nowhere.md#part)", REPOSITORY / "docs/rounds.md", "rounds.md", 7)

    assert site.faults == ["docs/rounds.md, line 7: nowhere.md#part leads to nothing"]
    assert line == "see [this](nowhere.md#part)"


def test_the_navigation_names_all_documents(site):
    nav = pages_of_nav()
    written = {str(page.relative_to(site.output)) for page in site.output.rglob("*.md")}
    assert set(nav) <= written
    assert len(nav) == len(set(nav))
    assert {page for page in written if not page.startswith("source/")} - set(nav) == {"license.md"}


def test_each_config_key_has_a_row_with_its_meaning(site):
    text = (site.output / "reference/config.md").read_text()

    for key in Config.model_fields:
        assert f"| `{key}` |" in text
    for key in ("clip_high", "temperature", "tensor_parallel", "switches", "credit", "ref_models"):
        assert f"| `{key}` |" in text
    without_meaning = re.findall(r"^\| `(\w+)` .*\|  \|$", text, re.M)
    assert not without_meaning, f"these keys need a comment beside them: {without_meaning}"
    for task in plugins.names("tasks"):
        assert reference.section_of(task).model_fields.keys() == set() or f"\n## {task}\n" in text


def test_each_command_stands_with_its_help(site):
    text = (site.output / "reference/commands.md").read_text()
    modules = reference.command_modules()
    assert "workflow_scripts.train" in modules and "workflow_scripts.init" in modules
    for module in modules:
        if module != "workflow_scripts.accept_code":  # its usage is that of snakemake
            assert f"python -m {module}" in text, module


def test_links_to_code_lead_to_pages_that_show_it(site):
    page = site.output / "source/recipes/grpo.yaml.md"
    assert (REPOSITORY / "recipes/grpo.yaml").read_text() in page.read_text()
    assert "../source/recipes/grpo.yaml.md" in (site.output / "recipes/grpo.md").read_text()
    assert Path(site.output / "images/benchmarks/staleness.svg").exists()
