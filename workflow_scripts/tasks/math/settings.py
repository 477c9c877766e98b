"""The config section `math`."""

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from workflow_scripts.config.sections import Share
from workflow_scripts.config.task_section import TaskSection

if TYPE_CHECKING:
    from workflow_scripts.config.load import Config


class Settings(TaskSection):
    """Settings for the selection of a round's answers. The switches are those of AutoCode's data tags."""

    makes_up: ClassVar[bool] = True
    imports_results: ClassVar[bool] = True
    starting: ClassVar[dict[str, Any] | None] = {"switches": ["all", "mixed"]}  # as GRPO does

    # keeptrigger: train on triggered answers too. negbetter: replace half of the wrong auto answers by spliced
    # self-corrections. all: keep the auto answers of both paths, whichever path is more accurate. mixed: with the
    # advantages group, group_std and rloo, drop questions that were always answered right, as GRPO does; AutoCode keeps
    # them with advantage 1.
    switches: tuple[Literal["keeptrigger", "negbetter", "all", "mixed"], ...] = ()
    easy_success: Share = 0.75  # triggered answers are thinned out by half above this accuracy of their path

    def rows_per_prompt(self, cfg: "Config") -> int:
        has_triggered_rows = cfg.generate.trigger is not None and "keeptrigger" in self.switches
        return cfg.generate.auto.samples + (2 if has_triggered_rows else 0)  # one triggered row per path
