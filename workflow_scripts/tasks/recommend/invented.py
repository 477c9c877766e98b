"""A small world of made-up films, for models that run on a CPU: items, and dialogues that ask for them.

Each film has a genre, a decade and a mood. Its title tells none of them, so a recommender must know the films by heart.
A seeker who tells the genre only leaves too many films for one list. One who also tells the decade leaves as many as
the list holds.
"""

import itertools
import random
from collections.abc import Iterator

from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.records import Message
from workflow_scripts.tasks.defaults import check_count
from workflow_scripts.tasks.recommend.items import Item, make_item

GENRES = ("western", "comedy", "thriller", "romance", "mystery")
DECADES = ("sixties", "seventies", "eighties", "nineties")
MOODS = ("calm", "dark", "funny")
FIRST = ("Silver", "Crimson", "Quiet", "Broken", "Golden", "Hidden", "Frozen", "Burning", "Distant", "Velvet")
SECOND = ("Harbor", "Canyon", "Letter", "Mirror", "Garden", "Station")

# The seeker chooses its first utterance among these, by level.
LEVELS = {
    "genre": (
        "I am looking for a {genre}.",
        "Can you recommend a {genre}?",
        "I feel like a {genre} tonight.",
        "Do you know a good {genre}?",
        "A {genre} would be nice.",
        "I want to see a {genre}.",
        "Please find me a {genre}.",
        "Which {genre} should I see?",
        "It should be a {genre}.",
        "I love a good {genre}.",
    ),
    "genre_and_decade": (
        "I am looking for a {genre} from the {decade}.",
        "Can you recommend a {genre} from the {decade}?",
        "I feel like a {genre} from the {decade}.",
        "Do you know a {genre} made in the {decade}?",
        "A {genre} from the {decade} would be nice.",
        "I want to see a {genre} made in the {decade}.",
        "Please find me a {genre} from the {decade}.",
        "Which {genre} from the {decade} should I see?",
        "It should be a {genre} made in the {decade}.",
        "I love a {genre} from the {decade}.",
    ),
}
GREETINGS = ("", "Hi! ", "Hello. ", "Good evening. ", "Hey, ")
HELD_OUT = 5  # every fifth combination of a film with the words that ask for it is for eval


def items() -> list[Item]:
    """Return the films, one per genre, decade and mood. Their titles never change."""
    titles = [" ".join(words) for words in itertools.product(FIRST, SECOND)]
    random.Random("films").shuffle(titles)
    kinds = itertools.product(GENRES, DECADES, MOODS)

    return [
        make_item(title, None, {"genre": genre, "decade": decade, "mood": mood})
        for title, (genre, decade, mood) in zip(titles, kinds)
    ]


def dialogues(level: str, split: str, count: int, seed: int) -> Iterator[tuple[list[Message], list[str]]]:
    """Yield `count` different dialogues of a level with their targets.

    Every split asks for all films. Some combinations of a film with the words that ask for it are held out for eval.
    """
    if level not in LEVELS:
        raise BadInput(f"there is no level {level!r}; levels are {', '.join(LEVELS)}")

    combinations = list(itertools.product(GREETINGS, LEVELS[level], items()))
    shuffled = random.Random(f"combinations.{level}").sample(combinations, len(combinations))
    available = [
        combination for number, combination in enumerate(shuffled) if (number % HELD_OUT == 0) == (split == "eval")
    ]
    check_count(split, level, count, len(available), "dialogues")

    for greeting, wording, film in random.Random(f"{seed}.{split}.{level}").sample(available, count):
        text = greeting + wording.format(**film["attributes"])
        yield [{"role": "user", "content": text}], [film["title"]]
