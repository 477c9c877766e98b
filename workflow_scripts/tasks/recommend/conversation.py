"""Ask the policy in the task `recommend`, and let the seeker answer it."""

from workflow_scripts.core.running.cli import merged
from workflow_scripts.core.running.ledger import Ledger
from workflow_scripts.tasks import defaults
from workflow_scripts.tasks.recommend.environment import SeekerEnvironment
from workflow_scripts.tasks.recommend.items import open_catalogue
from workflow_scripts.tasks.recommend.settings import Settings


class Conversation(defaults.Conversation):
    """The policy continues the dialogue of a prompt with the seeker."""

    def environment(self, version: str, options: defaults.EnvironmentOptions) -> SeekerEnvironment:
        settings = Settings.model_validate(merged(dict(self.settings), options.endpoints))
        catalogue = open_catalogue(self.files["catalogue"], settings.grounding, options, version)

        ledger = None
        if settings.seeker.openai:
            ledger = Ledger(f"{options.requests}/seeker_requests", options.shard)

        return SeekerEnvironment(settings, catalogue, version, ledger)
