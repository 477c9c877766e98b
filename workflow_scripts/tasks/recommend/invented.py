"""A small world of films that nobody made, for models that run on a CPU: items, and dialogues that ask for them.

Each film has a genre, a decade and a mood. Its title says neither genre nor mood, so a recommender must know it by
heart. A seeker who tells the genre alone leaves too many films for one list; one who tells the decade too leaves as
many as the list holds.
"""

import itertools
import random
from collections.abc import Iterator

from workflow_scripts.core.templates import check_count
from workflow_scripts.core.errors import BadInput
from workflow_scripts.tasks.recommend.items import item

GENRES = ("western", "comedy", "thriller", "romance", "mystery")
DECADES = ("sixties", "seventies", "eighties", "nineties")
MOODS = ("calm", "dark", "funny")
FIRST = ("Silver", "Crimson", "Quiet", "Broken", "Golden", "Hidden", "Frozen", "Burning", "Distant", "Velvet")
SECOND = ("Harbor", "Canyon", "Letter", "Mirror", "Garden", "Station")
# level: what the seeker says first
LEVELS = {
    "genre": (
        "I am looking for a {genre}.", "Can you recommend a {genre}?", "I feel like a {genre} tonight.",
        "Do you know a good {genre}?", "A {genre} would be nice.", "I want to see a {genre}.",
        "Please find me a {genre}.", "Which {genre} should I see?", "It should be a {genre}.", "I love a good {genre}.",
    ),
    "genre_and_decade": (
        "I am looking for a {genre} from the {decade}.", "Can you recommend a {genre} from the {decade}?",
        "I feel like a {genre} from the {decade}.", "Do you know a {genre} made in the {decade}?",
        "A {genre} from the {decade} would be nice.", "I want to see a {genre} made in the {decade}.",
        "Please find me a {genre} from the {decade}.", "Which {genre} from the {decade} should I see?",
        "It should be a {genre} made in the {decade}.", "I love a {genre} from the {decade}.",
    ),
}  # fmt: skip
GREETINGS = ("", "Hi! ", "Hello. ", "Good evening. ", "Hey, ")


def items() -> list[dict]:
    """The films, one per genre, decade and mood; titles are drawn once and for all."""
    titles = [" ".join(words) for words in itertools.product(FIRST, SECOND)]
    random.Random("films").shuffle(titles)
    kinds = itertools.product(GENRES, DECADES, MOODS)
    return [
        item(title, None, {"genre": genre, "decade": decade, "mood": mood})
        for title, (genre, decade, mood) in zip(titles, kinds)
    ]


def dialogues(level: str, split: str, count: int, seed: int) -> Iterator[dict]:
    """`count` different {dialog, target_items} of a level. Films are those of every split; each fifth combination of a
    film with the words that ask for it is held out for eval."""
    if level not in LEVELS:
        raise BadInput(f"there is no level {level!r}; levels are {', '.join(LEVELS)}")
    combined = itertools.product(GREETINGS, LEVELS[level], items())
    held_out = (lambda number: number % 5 == 0) if split == "eval" else (lambda number: number % 5 != 0)
    shuffled = random.Random(f"combinations.{level}").sample(list(combined), len(GREETINGS) * len(LEVELS[level]) * 60)
    available = [one for number, one in enumerate(shuffled) if held_out(number)]
    check_count(split, level, count, len(available), "dialogues")
    for greeting, wording, film in random.Random(f"{seed}.{split}.{level}").sample(available, count):
        text = greeting + wording.format(**film["attributes"])
        yield {"dialog": [{"role": "user", "content": text}], "target_items": [film["title"]]}
