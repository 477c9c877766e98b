"""Take a meta file that exists for one of a round: graded answers by question, auto or triggered ones.

The file is a pickle, in one of two forms: that of a run (`meta/r1_auto_q2responses_….pkl`), or that of the task's
original system (for math, AutoCode's `…_q2responses_….pkl`). Answers of a run keep their tokens and the policy that
sampled them, which needs the same tokenizer. Texts of another system are tokenised once, here, and are marked
`foreign`, since the policy that wrote them is unknown. A file in another form, a record that lacks a field, and an
answer that comes twice are errors.

    python -m workflow_scripts.import_meta --task math --model runs/arithmetic/checkpoints/init/checkpoint.json \\
        --meta round1_auto_q2responses_mine.pkl --version auto --output /tmp/meta.pkl
"""

from collections import Counter
from typing import Any

from workflow_scripts import tasks
from workflow_scripts.core.checkpoint import model_folder
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.identity import record_id
from workflow_scripts.core.imports import NUMBER, TOKEN_FIELDS, Encoder, require
from workflow_scripts.core.pickles import read_pickle, write_pickle
from workflow_scripts.core.pretrained import AutoTokenizer
from workflow_scripts.core.running.cli import (
    add_code_argument,
    add_task_arguments,
    add_template_argument,
    arguments,
    progress,
    run,
    task_files,
)
from workflow_scripts.core.running.manifest import write_manifest
from workflow_scripts.core.templates import render

ENTRY_FIELDS = {"id": str, "question": str, "level": str, "prompt_text": str, "answers": list}
ANSWER_FIELDS = {"uid": str, "answer": str, "reward": NUMBER, "finish": str} | TOKEN_FIELDS


class Reader:
    """Reads the entries of one meta file."""

    def __init__(self, path: str, version: str, template: str, tokenizer: Any, importer: Any, parts: dict[str, Any]):
        """`parts` holds the task's Conversation and Selection."""
        self.path = path
        self.version = version
        self.template = template
        self.tokenizer = tokenizer
        self.encoder = Encoder(tokenizer)
        self.importer = importer
        self.conversation = parts["Conversation"]
        self.selection = parts["Selection"]
        self.numbers: Counter[tuple[str, str]] = Counter()  # of answers, by prompt and trigger

    def read(self) -> dict[str, Any]:
        """Return the meta file in this project's form. Entries whose questions read alike become one."""
        entries = read_pickle(self.path)
        if not isinstance(entries, dict) or not entries:
            raise BadInput(
                f"{self.path}: should be a mapping from questions to their answers, found "
                f"{'an empty one' if entries == {} else type(entries).__name__}; known forms are "
                f"{self.importer.known['meta']}"
            )

        meta: dict[str, Any] = {}
        for key, entry in progress(entries.items(), total=len(entries), desc="import_meta", unit="question"):
            where = f"{self.path}, question {key!r:.60}"
            is_foreign = isinstance(entry, dict) and self.importer.is_foreign_meta(entry)
            checked = self.foreign(key, entry, where) if is_foreign else self.own(key, entry, where)
            before = meta.get(checked["id"])
            meta[checked["id"]] = self.importer.merge_meta(before, checked) if before else checked

        self.check_unique(meta)
        return meta

    def own(self, key: Any, entry: Any, where: str) -> dict[str, Any]:
        """Check an entry of a run's meta file and return it."""
        known = self.importer.known["meta"]
        require(entry, ENTRY_FIELDS, where, known)
        if entry["id"] != key or "reference" not in entry:
            raise BadInput(f"{where}: should have this key as its id, and a reference; known forms are {known}")

        for number, answer in enumerate(entry["answers"]):
            place = f"{where}, answer {number}"
            require(answer, ANSWER_FIELDS, place, known)
            if missing := [name for name in self.selection.kept if name not in answer]:
                raise BadInput(f"{place}: lacks {', '.join(missing)}, which the task needs to select answers")
            self.encoder.check(answer, answer.get("prompt_text", entry["prompt_text"]), place)

        return entry

    def foreign(self, key: Any, entry: dict[str, Any], where: str) -> dict[str, Any]:
        """Return an entry of the original system's file with this project's fields, and its texts as tokens."""
        if not isinstance(key, str) or not key.strip():
            raise BadInput(f"{where}: the key should be the question, as text")

        converted = self.importer.convert_meta(key, entry, self.version, where)
        converted |= {"id": record_id(converted["question"])}
        prompts = self.prompt_texts(converted)
        converted["prompt_text"] = converted["prompt_text"] or prompts["auto"]

        for answer in converted["answers"]:
            trigger = answer["trigger"]
            number = self.numbers[converted["id"], trigger]
            self.numbers[converted["id"], trigger] += 1
            answer["prompt_text"] = answer["prompt_text"] or prompts[trigger]
            answer["uid"] = f"{converted['id']}.{trigger}.{number}"
            answer["finish"] = "imported"
            answer |= self.encoder.encode(answer["prompt_text"], self.conversation.segments(answer["answer"]))

        return converted

    def prompt_texts(self, entry: dict[str, Any]) -> dict[str, str]:
        """Return how the question is asked, by trigger, for answers that come without their prompt."""
        requests = self.conversation.requests(entry, "auto")
        if self.conversation.triggers:
            requests = requests | self.conversation.requests(entry, "trigger")
        return {trigger: render(self.template, request, self.tokenizer) for trigger, request in requests.items()}

    def check_unique(self, meta: dict[str, Any]) -> None:
        """Raise BadInput if two answers have the same uid."""
        counts = Counter(answer["uid"] for entry in meta.values() for answer in entry["answers"])
        if repeated := [uid for uid, count in counts.items() if count > 1]:
            raise BadInput(f"{self.path}: the answer {repeated[0]} comes {counts[repeated[0]]} times; uids are unique")


def main() -> None:
    parser = arguments(__doc__)
    add_task_arguments(parser)
    add_code_argument(parser)
    parser.add_argument("--meta", required=True, help="the meta file to read (.pkl)")
    parser.add_argument("--version", choices=("auto", "trigger"), required=True, help="how the answers were asked for")
    add_template_argument(parser)
    parser.add_argument("--model", required=True, help="checkpoint.json of the model, for its tokenizer")
    parser.add_argument("--output", required=True, help="the .pkl to write")
    args = parser.parse_args()

    parts = {
        name: tasks.load(args.task, name, args.task_settings, task_files(args))
        for name in ("Importer", "Conversation", "Selection")
    }
    tokenizer = AutoTokenizer.from_pretrained(model_folder(args.model))
    meta = Reader(args.meta, args.version, args.template, tokenizer, parts["Importer"], parts).read()
    answers = [answer for entry in meta.values() for answer in entry["answers"]]
    counts = parts["Selection"].counts(meta)
    foreign = sum(answer["policy"] == "foreign" for answer in answers)

    write_pickle(args.output, meta)
    used = {"version": args.version, "template": args.template}
    fields = {"rows": len(answers), "questions": len(meta), "foreign": foreign, **counts}
    write_manifest(args.output, [args.model, args.meta], used, **fields)
    print(f"{len(meta)} questions; " + ", ".join(f"{name} {count}" for name, count in counts.items()))


if __name__ == "__main__":
    run(main)
