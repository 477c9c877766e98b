"""The sections of the prompts and of the model that round 0 starts from."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, NonNegativeInt, PositiveFloat, PositiveInt, Tag, model_validator

from workflow_scripts.config.sections.base import Name, Section, Share, exactly_one
from workflow_scripts.config.sections.generation import SetSampling


class Split(Section):
    """The source of a set of prompts: a file or data set, or `count` questions that the task makes up.

    If a record lacks the default keys, the task looks for the columns of the data sets that it knows.
    """

    file: str | None = None  # .jsonl, .json, .csv or .parquet; a folder of `datasets`; a name on the Hugging Face hub
    count: dict[str, NonNegativeInt] | None = None  # level → number of questions
    limit: PositiveInt | None = None  # use only the first so many records of the file
    question_key: str = "question"  # the key of the question in a record
    answer_key: str = "answer"  # the key of the reference in a record
    subset: str | None = None  # the configuration of a data set that has several, such as main of openai/gsm8k
    split: str = "train"  # the split of a data set that has several
    revision: str | None = None  # of a data set on the hub: a commit, so that the prompts stay the same

    @model_validator(mode="after")
    def has_one_source(self):
        exactly_one(file=self.file, count=self.count)
        if self.count:
            for name in sorted(Split.model_fields.keys() & self.model_fields_set - {"file", "count"}):
                if getattr(self, name) != Split.model_fields[name].default:
                    raise ValueError(f"`{name}` belongs to a `file`, and made-up questions come from `count`")
        return self


class EvalSet(Split):
    """One of several sets of eval questions, with what differs for it from the other sets."""

    sampling: SetSampling | None = None  # of its answers; null: generate.eval
    settings: dict[str, Any] | None = None  # keys of the task's section; null: as there

    @property
    def is_answered_apart(self) -> bool:
        """True if jobs of its own answer and grade this set."""
        return bool(self.sampling or self.settings)


EVAL_TAGS = ("<one set>", "<several sets>")  # parts of the paths of faults, which are not shown


def _eval_tag(value: Any) -> str:
    """Return whether the value of `prompts.eval` is one set of questions, or a mapping of names to sets."""
    is_mapping = isinstance(value, dict) and bool(value) and not value.keys() & Split.model_fields.keys()
    has_sets = is_mapping and all(isinstance(item, dict | Split) for item in value.values())
    return EVAL_TAGS[1] if has_sets else EVAL_TAGS[0]


EvalSets = Annotated[
    Annotated[dict[Name, EvalSet], Tag(EVAL_TAGS[1])] | Annotated[Split, Tag(EVAL_TAGS[0])], Discriminator(_eval_tag)
]


Action = Literal["refuse", "warn", "drop"]  # stop the run; print a warning; leave the prompts out


class Screening(Section):
    """The search for train (or pool) prompts that resemble eval prompts or one another."""

    contamination: Action | None = "drop"  # prompts that are like an eval prompt; null: they are not looked for
    ngram: PositiveInt = 8  # words in an n-gram
    coverage: Annotated[Share, Field(gt=0)] = 0.5  # of an eval prompt's words, by n-grams that it shares with a prompt
    duplicates: Action | None = "drop"  # prompts that nearly equal an earlier one; null: they are not looked for
    similarity: Annotated[Share, Field(gt=0)] = 0.8  # the Jaccard similarity of their sets of character n-grams
    shingle: PositiveInt = 5  # characters in such an n-gram


class Prompts(Section):
    """The questions of an experiment, frozen once."""

    eval: EvalSets | None = None  # what metrics are computed on: a set of questions, or several by name
    train: Split | None = None  # the questions of the rounds; none if data.source holds the rows to train on
    pool: Split | None = None  # in place of train: prompts that the task selects or makes the train prompts from
    screening: Screening | None = None  # look for contamination and near-duplicates; null: for equal questions only

    @model_validator(mode="before")
    @classmethod
    def has_keys_by_split(cls, values: Any) -> Any:
        moved = {"question_key", "answer_key"} & values.keys() if isinstance(values, dict) else set()
        if moved:
            name = max(moved)
            raise ValueError(
                f"each split has its own `{name}`: move it into the splits, as in `train: {{file: …, {name}: "
                f"{values[name]}}}`"
            )
        return values

    @model_validator(mode="before")
    @classmethod
    def has_names_for_own_settings(cls, values: Any) -> Any:
        one_set = values.get("eval") if isinstance(values, dict) else None
        if _eval_tag(one_set) == EVAL_TAGS[0] and isinstance(one_set, dict):
            for key in ("sampling", "settings"):
                if key in one_set:
                    section = "generate.eval" if key == "sampling" else "the task's section"
                    raise ValueError(f"eval.{key}: it is for one of several sets by name; for one set use {section}")
        return values

    @property
    def sets_apart(self) -> dict[str, EvalSet]:
        """The eval sets that jobs of their own answer, by name."""
        sets = self.sources("eval").items()
        return {name: one for name, one in sets if isinstance(one, EvalSet) and one.is_answered_apart}

    @property
    def questions(self) -> "Prompts":
        """What decides which questions there are: all keys but those that say how eval sets are answered."""
        if not self.sets_apart:
            return self
        plain = {"sampling": None, "settings": None}
        return self.model_copy(
            update={"eval": {name: one.model_copy(update=plain) for name, one in self.sources("eval").items()}}
        )

    def sources(self, split: str) -> dict[str, Split]:
        """Return the sources of a split (train, pool or eval) by the name of their set; "" if there is one set only."""
        value = getattr(self, split)
        if value is None:
            return {}
        return value if isinstance(value, dict) else {"": value}


class Scratch(Section):
    """A Llama made in place, with a byte-level BPE tokenizer trained on the texts of the cold start."""

    layers: PositiveInt = 3  # transformer blocks
    width: PositiveInt = 128  # of the hidden states
    heads: PositiveInt = 4  # attention heads
    mlp_width: PositiveInt = 384  # of the feed-forward layers
    vocabulary: PositiveInt = 384  # tokens
    context: PositiveInt = 2048  # tokens
    init_std: PositiveFloat = 0.06  # standard deviation of the random weights

    @model_validator(mode="after")
    def is_possible(self):
        if self.width % (2 * self.heads):
            raise ValueError(f"width {self.width} is not an even multiple of heads {self.heads}")
        if self.vocabulary < 258:
            raise ValueError(f"vocabulary {self.vocabulary}: at least 258, for 256 bytes and two special tokens")
        return self


class Model(Section):
    """The model that round 0 starts from: an existing one, or one made from scratch."""

    path: str | None = None  # a folder, or a name on the Hugging Face hub
    revision: str | None = None  # a commit of a model on the hub
    parameters: PositiveFloat | None = None  # such as 7e9, for a model on the hub: sizes the requests to a cluster
    scratch: Scratch | None = None

    @model_validator(mode="after")
    def has_one_source(self):
        exactly_one(path=self.path, scratch=self.scratch)
        return self
