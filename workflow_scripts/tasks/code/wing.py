"""Parameters that the task `code` adds to the rules."""

from typing import Any

from workflow_scripts.config.sections import settings_of
from workflow_scripts.tasks import defaults

RUNNING = ("url", "concurrency", "timeout")  # how a service is called; no result depends on it


class Wing(defaults.Wing):
    """Passes on how programs are tested to the stage that grades."""

    def settings(self, stage: str) -> dict[str, Any]:
        if stage != "grade":
            return {}
        section: Any = self.cfg.task_section
        settings = settings_of(section, "service")
        if section.service:
            settings["service"] = settings_of(section.service, *RUNNING)
        return settings

    def endpoints(self, stage: str) -> dict[str, Any]:
        section: Any = self.cfg.task_section
        if stage != "grade" or section.service is None:
            return {}
        return {"service": {name: getattr(section.service, name) for name in RUNNING}}
