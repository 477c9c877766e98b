"""Items, and which of them an utterance mentions: a ranking by the titles in it and by similarity.

A catalogue file holds {items, embedder, vectors}. `embedder` names the model whose vectors are compared. `vectors` is a
float32 array of shape [items, width] with rows of unit length. It is None for the embedder tfidf, which is fitted to
the texts in an instant.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from string import Formatter
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import read_json
from workflow_scripts.core.identity import normalise
from workflow_scripts.core.pickles import read_pickle
from workflow_scripts.core.records import read_records
from workflow_scripts.core.running.cli import say
from workflow_scripts.core.running.ledger import Ledger
from workflow_scripts.tasks.recommend.embedders import EMBEDDINGS, Embedder, Tfidf, make_encoder

if TYPE_CHECKING:
    from workflow_scripts.tasks.defaults import EnvironmentOptions
    from workflow_scripts.tasks.recommend.settings import Grounding

DEPTH = 50  # items that a ranking has at most
NUMBERED = re.compile(r"(?:^|\s)(\d{1,2})\. (?=\S)")


class Item(TypedDict):
    """Something that can be recommended."""

    title: str
    text: str  # what utterances are compared with
    attributes: dict[str, str]  # what a scripted seeker may be asked about, by name


def make_item(title: str, text: str | None = None, attributes: dict[str, Any] | None = None) -> Item:
    """Return an item. Its text is its title by default, and attributes without a value are left out."""
    values = {}
    for name, value in (attributes or {}).items():
        if value not in (None, "", []):
            values[name] = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return {"title": normalise(title), "text": text or normalise(title), "attributes": values}


def read_items(file: str) -> list[Item]:
    """Return the items of a file with `title` and, optionally, `text`; every other column is an attribute.

    TART's id2info.json, an object of {name, …} by id, is read too. Raise BadInput if a title is missing or comes twice.
    """
    items: list[Item] = []
    titles = set()

    for number, record in enumerate(_item_records(file), 1):
        title = record.get("title")
        if not isinstance(title, str) or not title.strip():
            raise BadInput(f"{file}, record {number}: title should be text, found {title!r:.60}")
        if not isinstance(record.get("text") or "", str):
            raise BadInput(f"{file}, record {number}: text should be text, found {record['text']!r:.60}")

        attributes = {name: value for name, value in record.items() if name not in ("title", "text")}
        item = make_item(title, record.get("text"), attributes)
        if item["title"] in titles:
            raise BadInput(f"{file}, record {number}: the title {title!r} occurs before; titles must be unique")
        items.append(item)
        titles.add(item["title"])

    return items


def _item_records(file: str) -> Iterator[dict[str, Any]]:
    """Yield the records of items. In id2info.json, a title may belong to several ids; the first one counts."""
    value = read_json(file) if Path(file).suffix == ".json" else None
    if not isinstance(value, dict):
        yield from read_records(file)
        return

    titles = set()
    repeated = 0
    for number, info in value.items():
        if not isinstance(info, dict) or not isinstance(info.get("name"), str):
            raise BadInput(f"{file}, item {number}: should be an object with `name`, found {info!r:.60}")
        title = normalise(info["name"])
        if title in titles:
            repeated += 1
            continue
        titles.add(title)
        others = {name: field for name, field in info.items() if name not in ("name", "title", "id")}
        yield {"id": number, "title": info["name"], **others}

    if repeated:
        say(f"{file}: {repeated} ids are left out, whose titles occur before; an item is known by its title")


def with_texts(items: list[Item], template: str) -> list[Item]:
    """Return items whose texts are a template of their fields, such as "{title}: {plot}".

    A value that an item lacks is left empty, and their number is reported. Raise BadInput for a field of no item.
    """
    fields = [field for _, field, _, _ in Formatter().parse(template) if field is not None]
    known = {"title", "text", *(name for item in items for name in item["attributes"])}
    unknown = [field for field in fields if field not in known]
    if unknown:
        raise BadInput(
            f"recommend.grounding.text: no item has the field {unknown[0]!r}; fields are {', '.join(sorted(known))}"
        )

    lacking: Counter[str] = Counter()
    results: list[Item] = []
    for item in items:
        values = {"title": item["title"], "text": item["text"]} | item["attributes"]
        lacking.update(field for field in fields if field not in values)
        text = template.format_map({field: values.get(field, "") for field in fields})
        results.append({"title": item["title"], "text": text.strip(), "attributes": item["attributes"]})

    for field, count in lacking.items():
        say(f"recommend.grounding.text: {count} of {len(items)} items have no {field}; its place is left empty")
    return results


# ---------------------------------------------------------------- the catalogue


class Catalogue:
    """The items that can be recommended, and how utterances are grounded in them. Items are numbered from 0."""

    def __init__(self, path: str | Path, grounding: "Grounding", ledger: Ledger | None = None, purpose: str = ""):
        """`ledger` and `purpose` are for an embeddings endpoint, which is not called without them."""
        stored = read_pickle(path)
        if stored["embedder"] != grounding.model:
            raise BadInput(
                f"{path}: made for the embedder {stored['embedder']!r}, not for {grounding.model!r}; make it again "
                "with workflow_scripts.tasks.recommend.catalogue"
            )

        self.path = path
        self.grounding = grounding
        self.ledger = ledger
        self.purpose = purpose
        self.items: list[Item] = stored["items"]
        self.vectors: np.ndarray | None = stored["vectors"]
        self.numbers = {item["title"]: number for number, item in enumerate(self.items)}
        self.folded_titles = [item["title"].casefold() for item in self.items]

    @cached_property
    def embedder(self) -> Embedder | None:
        if self.grounding.embedder is None:
            return None
        if self.grounding.embedder == "tfidf":
            return Tfidf([item["text"] for item in self.items])
        return make_encoder(self.grounding, self.ledger, self.purpose, self.vectors)

    def close(self) -> None:
        """Release the embedder, if it was needed."""
        if "embedder" in self.__dict__ and self.embedder:
            self.embedder.close()

    def prepare(self, texts: Sequence[str]) -> None:
        """Embed those of the texts that recommend, all at once, before they are ranked one by one."""
        if self.embedder:
            self.embedder.prepare([self.query(text) for text in texts if self.recommends(text)])

    def query(self, text: str) -> str:
        """Return the text that is compared with the items', for an utterance."""
        template = self.grounding.query
        return template.replace("{utterance}", text) if template else text

    def number(self, title: str) -> int:
        """Return an item's number. Raise BadInput if no item has this title."""
        if normalise(title) not in self.numbers:
            raise BadInput(f"{self.path}: a prompt's target {title!r} is none of its {len(self.items)} items")
        return self.numbers[normalise(title)]

    @lru_cache(10_000)  # the same utterances come again
    def mentioned(self, text: str) -> tuple[int, ...]:
        """Return the items whose titles stand in a text, in its order. A title within a longer one does not count."""
        text = normalise(text).casefold()
        spans = []
        for number, title in enumerate(self.folded_titles):
            if title in text:
                spans += [(start, -len(title), number) for start in _starts(title, text)]

        numbers: dict[int, None] = {}
        end = 0
        for start, negative_length, number in sorted(spans):  # of the titles that start together, the longest first
            if start >= end:
                numbers[number] = None
                end = start - negative_length

        return tuple(numbers)

    @lru_cache(10_000)
    def ranking(self, text: str) -> tuple[int, ...]:
        """Return at most DEPTH items that an utterance means, the most likely first; ties in the catalogue's order."""
        numbers = list(self.mentioned(text)) if self.grounding.literal else []

        if self.embedder:
            similarities = self.embedder.similarities(self.query(text))
            nearest = np.argsort(-similarities, kind="stable")[: 2 * DEPTH].tolist()
            literal = set(numbers)
            numbers += [number for number in nearest if number not in literal]

        return tuple(numbers[:DEPTH])

    def recommends(self, text: str) -> bool:
        """Return whether an utterance recommends: it has a numbered list or a title. (The original asked a model.)"""
        return "1" in NUMBERED.findall(text) or bool(self.mentioned(text))


def open_catalogue(path: str, grounding: "Grounding", options: "EnvironmentOptions", purpose: str) -> Catalogue:
    """Return a catalogue whose embedder, if it is behind an endpoint, keeps its vectors in the run's ledger."""
    if grounding.openai is None:
        return Catalogue(path, grounding)

    ledger = Ledger(f"{options.requests}/{EMBEDDINGS}", options.shard)
    return Catalogue(path, grounding, ledger, f"embeddings ({purpose})")


def _starts(title: str, text: str) -> list[int]:
    """Return where a title starts in a text, as whole words."""
    return [match.start() for match in re.finditer(rf"(?<!\w){re.escape(title)}(?!\w)", text)]


# ---------------------------------------------------------------- lists


def list_numbers(text: str) -> list[int]:
    """Return the numbers of an utterance's numbered list, as they stand there."""
    return [int(number) for number in NUMBERED.findall(text)]


def as_list(catalogue: Catalogue, numbers: list[int]) -> str:
    """Return items as a numbered list."""
    return "\n".join(f"{place}. {catalogue.items[number]['title']}" for place, number in enumerate(numbers, 1))


def rewritten(catalogue: Catalogue, text: str, targets: list[str], length: int) -> str:
    """Return an utterance with a better list; what stands before and after the list is kept.

    The targets that were hit come first, then the other items in the order of the ranking, none twice, up to `length`.
    """
    ranking = catalogue.ranking(text)
    target_numbers = {catalogue.number(title) for title in targets}
    hits = [number for number in ranking[: catalogue.grounding.top_k] if number in target_numbers]
    others = [number for number in ranking if number not in hits]
    better = as_list(catalogue, (hits + others)[:length])

    entries = list(NUMBERED.finditer(text))
    if not entries:
        return f"{text}\n{better}"

    before = text[: entries[0].start(1)]
    last_entry = text[entries[-1].start(1) :]
    after = last_entry[last_entry.find("\n") :] if "\n" in last_entry else ""
    return before + better + after
