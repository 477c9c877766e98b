"""Items, and which of them an utterance mentions: a ranking by the titles in it and by similarity.

A catalogue file holds {items, embedder, vectors}. `vectors` is a float32 array of shape [items, width] with rows of
unit length. It is None for the embedder tfidf, which is fitted to the texts in an instant.
"""

import re
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypedDict

import numpy as np

from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.identity import normalise
from workflow_scripts.core.pickles import read_pickle
from workflow_scripts.core.records import read_records

if TYPE_CHECKING:
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
    values = {name: str(value) for name, value in (attributes or {}).items() if value not in (None, "")}
    return {"title": normalise(title), "text": text or normalise(title), "attributes": values}


def read_items(file: str) -> list[Item]:
    """Return the items of a file with `title` and, optionally, `text`; every other column is an attribute.

    Raise BadInput if a title is missing or occurs twice.
    """
    items: list[Item] = []
    titles = set()

    for number, record in enumerate(read_records(file), 1):
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


# ---------------------------------------------------------------- embedders


class Embedder(Protocol):
    """What compares an utterance with the texts of all items."""

    def similarities(self, text: str) -> np.ndarray:
        """Return the cosine similarity of a text to each item: [items]."""
        ...


class Tfidf:
    """TF-IDF of the letters within words, 2 to 4 at a time. It needs no model, and tolerates typing errors."""

    def __init__(self, texts: list[str]):
        from sklearn.feature_extraction.text import TfidfVectorizer

        self.vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True)
        self.vectors = self.vectorizer.fit_transform(texts)

    def similarities(self, text: str) -> np.ndarray:
        vector: Any = self.vectorizer.transform([text])
        return (self.vectors @ vector.T).toarray()[:, 0]


class Encoder:
    """An encoder in a folder or on the Hugging Face hub: the mean of its last hidden states, at unit length."""

    def __init__(self, name: str, vectors: np.ndarray | None = None):
        from workflow_scripts.core.pretrained import AutoModel, AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(name)
        self.model = AutoModel.from_pretrained(name).eval()
        self.vectors = vectors

    def encode(self, texts: list[str]) -> np.ndarray:
        """Return the vectors of some texts: [texts, width], float32."""
        import torch

        longest = min(512, self.tokenizer.model_max_length)
        inputs = self.tokenizer(texts, padding=True, truncation=True, max_length=longest, return_tensors="pt")
        with torch.inference_mode():
            hidden = self.model(**inputs).last_hidden_state

        mask = inputs["attention_mask"][:, :, None]
        mean = (hidden * mask).sum(1) / mask.sum(1)
        return torch.nn.functional.normalize(mean, dim=-1).float().numpy()

    def similarities(self, text: str) -> np.ndarray:
        return self.vectors @ self.encode([text])[0]


# ---------------------------------------------------------------- the catalogue


class Catalogue:
    """The items that can be recommended, and how utterances are grounded in them. Items are numbered from 0."""

    def __init__(self, path: str | Path, grounding: "Grounding"):
        stored = read_pickle(path)
        if stored["embedder"] != grounding.embedder:
            raise BadInput(
                f"{path}: made for the embedder {stored['embedder']!r}, not for {grounding.embedder!r}; make it again "
                "with workflow_scripts.tasks.recommend.catalogue"
            )

        self.path = path
        self.grounding = grounding
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
        return Encoder(self.grounding.embedder, self.vectors)

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
            similarities = self.embedder.similarities(text)
            nearest = np.argsort(-similarities, kind="stable")[: 2 * DEPTH].tolist()
            literal = set(numbers)
            numbers += [number for number in nearest if number not in literal]

        return tuple(numbers[:DEPTH])

    def recommends(self, text: str) -> bool:
        """Return whether an utterance recommends: it has a numbered list or a title. (The original asked a model.)"""
        return "1" in NUMBERED.findall(text) or bool(self.mentioned(text))


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
