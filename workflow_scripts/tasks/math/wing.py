"""Inputs, parameters and products that the task `math` adds to the rules."""

from typing import Any

from workflow_scripts.config.sections import settings_of
from workflow_scripts.tasks import defaults


class Wing(defaults.Wing):
    """Passes the switches of the selection on to the stage that selects."""

    def settings(self, stage: str) -> dict[str, Any]:
        return settings_of(self.cfg.task_section) if stage == "construct_data" else {}
