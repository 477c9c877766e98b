"""The parts of the task recommend on a catalogue of five films, and short dialogues about them."""

from workflow_scripts.rollout.environment import Conversation as Rollout
from workflow_scripts.tasks import load as load_part
from workflow_scripts.tasks.defaults import EnvironmentOptions
from workflow_scripts.tasks.recommend.environment import SeekerEnvironment
from workflow_scripts.tasks.recommend.grading import Grading
from workflow_scripts.tasks.recommend.items import Catalogue, make_item
from workflow_scripts.tasks.recommend.prompts import Prompts
from workflow_scripts.tasks.recommend.settings import Grounding, Settings

ITEMS = [
    make_item("Silver Harbor", None, {"genre": "western", "decade": "sixties"}),
    make_item("Harbor", None, {"genre": "western", "decade": "seventies"}),
    make_item("Crimson Letter", None, {"genre": "comedy", "decade": "sixties"}),
    make_item("Quiet Garden", None, {"genre": "comedy", "decade": "seventies"}),
    make_item("Élan (1999)", None, {"genre": "comedy", "decade": "nineties"}),
]
RIGHT = "You may like:\n1. Quiet Garden\n2. Harbor"
WRONG = "1. Crimson Letter\n2. Élan (1999)"
VALUES = {"grounding": {"top_k": 2}, "list_length": 2, "resamples": 2}
NOT_THESE = "No, not these. Something else, please."


def settings(**changes) -> Settings:
    return Settings.model_validate(VALUES | changes)


def catalogue_of(path, **grounding) -> Catalogue:
    return Catalogue(path, Grounding(**{"top_k": 2} | grounding))


def environment(path, version="auto", **changes) -> SeekerEnvironment:
    conversation = load_part("recommend", "Conversation", VALUES | changes, {"catalogue": str(path)})
    return conversation.environment(version, EnvironmentOptions())


def grading(path, **changes) -> Grading:
    return Grading(VALUES | changes, {"catalogue": str(path)})


def prompt(targets=("Harbor",), text="A western, please.", **changes):
    return Prompts(changes, {}).prompt([{"role": "user", "content": text}], list(targets), "genre")


def turns(*texts) -> list[dict]:
    return [{"role": ("assistant", "user")[i % 2], "content": text} for i, text in enumerate(texts)]


def rollout(*texts, uid="q.auto.0") -> Rollout:
    return Rollout(uid, prompt(), turns=turns(*texts))


def titles(catalogue, numbers) -> list[str]:
    return [catalogue.items[number]["title"] for number in numbers]
