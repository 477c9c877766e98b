"""Write the config of an own experiment, with comments, for a model and a file of questions.

    python -m workflow_scripts.init                                                  # asks for all that it needs
    python -m workflow_scripts.init --file train.jsonl --model Qwen/Qwen2.5-1.5B-Instruct
    python -m workflow_scripts.init --file openai/gsm8k --subset main --model models/mine --recipe recipes/grpo.yaml

It looks into the file, finds the task that can read it and the keys of question and reference, and shows an example.
It looks into the model for a chat template. Without --eval-file, the eval questions are the split `test` or
`validation` of a data set, or a tenth of a single file. The config that it writes passes the dry run:

    snakemake --profile local -n round1_checkpoint --configfile mine.yaml

On a terminal, it asks for what no option gives. Enter takes the proposal in brackets.
"""

import argparse
import re
import sys
from pathlib import Path
from typing import Any

from workflow_scripts.config.load import ConfigError
from workflow_scripts.config.sections import Split
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import write_text
from workflow_scripts.core.running import plugins
from workflow_scripts.core.running.cli import arguments, run
from workflow_scripts.core.running.launch import candidate_gpus
from workflow_scripts.core.templates import TEMPLATES
from workflow_scripts.starting import questions, write
from workflow_scripts.starting.models import facts_of


def parse_arguments() -> argparse.Namespace:
    parser = arguments(__doc__)
    parser.add_argument("--file", help="the questions: a file, a folder of `datasets`, or a name on the hub")
    parser.add_argument("--eval-file", help="the eval questions, in the same form (default: taken from --file)")
    parser.add_argument("--model", help="a folder that from_pretrained loads, or a name on the hub")
    parser.add_argument("--task", help="how answers are graded (default: the task that can read the file)")
    parser.add_argument("--recipe", type=Path, help="a recipe to start from, such as recipes/reference.yaml")
    parser.add_argument("--name", help="the run's name (default: that of the file)")
    parser.add_argument("--question-key", help="the column of the question")
    parser.add_argument("--answer-key", help="the column of the reference")
    parser.add_argument("--subset", help="the configuration of a data set that has several")
    parser.add_argument("--split", default="train", help="the split of a data set that has several")
    parser.add_argument("--eval-split", help="the split with the eval questions (default: test or validation)")
    parser.add_argument("--template", choices=(*TEMPLATES, "chat"), help="prompt template (default: as the model has)")
    parser.add_argument("--gpus", type=int, help="GPUs that the run may use (default: those of this machine)")
    parser.add_argument("--output", type=Path, help="the config (default: NAME.yaml)")
    parser.add_argument("--force", action="store_true", help="replace files that exist")
    return parser.parse_args()


# ---------------------------------------------------------------- questions to the user


def answer_of(option: str, value: Any, question: str, proposal: Any = None) -> str:
    """Return the value of an option; on a terminal, ask for it if it is missing. The proposal counts by default."""
    if value is not None:
        return value

    if sys.stdin.isatty():
        shown = f"{question} [{proposal}]: " if proposal is not None else f"{question}: "
        while True:
            typed = input(shown).strip()
            if typed or proposal is not None:
                return typed or str(proposal)

    if proposal is None:
        raise BadInput(f"--{option} is missing: {question}")
    return str(proposal)


# ---------------------------------------------------------------- what the config says


def train_source(args: argparse.Namespace) -> Split:
    """Return the source of the train questions, with the keys that options name."""
    file = answer_of("file", args.file, "Your questions (a file, a folder of `datasets`, or a name on the hub)")
    fields = {"file": file, "question_key": args.question_key, "answer_key": args.answer_key}
    fields |= {"subset": args.subset, "split": args.split}
    return Split(**{name: value for name, value in fields.items() if value is not None})


def chosen_look(args: argparse.Namespace, source: Split) -> questions.Look:
    """Return what the chosen task makes of the file, and show it. Raise BadInput if several tasks can read it."""
    if args.recipe:
        values = write.check_recipe(args.recipe)
        looks = questions.looks_of(source, [values["task"]], values.get(values["task"]))
    elif args.task:
        plugins.check_name("tasks", args.task)
        check_task(args.task)
        looks = questions.looks_of(source, [args.task])
    else:
        looks = questions.looks_of(source, questions.starting_tasks())

    equal = [look for look in looks if look.share == looks[0].share]
    if len(equal) > 1:
        names = ", ".join(look.task for look in equal)
        task = answer_of("task", None, f"Several tasks can read the file; which one should grade? ({names})")
        plugins.check_name("tasks", task)
        equal = [look for look in equal if look.task == task]
        if not equal:
            raise BadInput(f"the task {task} cannot read {source.file} as well as {names}")

    show_look(equal[0])
    return equal[0]


def check_task(task: str) -> None:
    """Raise BadInput if a config of this task needs more than a file of questions."""
    if task not in questions.starting_tasks():
        raise BadInput(
            f"--task {task}: its config needs more than a file of questions; start from a recipe "
            "(--recipe, or copy one of recipes/README.md)"
        )


def show_look(look: questions.Look) -> None:
    """Print which task reads the file, under which keys, and an example."""
    example = look.prompts[0]
    print(f"{look.source.file}: read by the task {look.task}; {look.summary}.")
    print(f"  question   {one_line(example['question'])}")
    print(f"  reference  {one_line(example['reference'])}")


def one_line(value: Any) -> str:
    """Return a value in one line of at most 100 characters."""
    text = re.sub(r"\s+", " ", str(value))
    return text if len(text) <= 100 else f"{text[:97]}…"


def eval_source(args: argparse.Namespace, look: questions.Look, output: Path) -> tuple[Split, Split, int]:
    """Return the sources of train and eval questions, and how many train questions there are."""
    source = look.source
    total = questions.count(source)

    if args.eval_split:
        evaluation = source.model_copy(update={"split": args.eval_split})
    elif not questions.can_be_divided(source) and not args.eval_file:
        evaluation = questions.eval_split(source)
    else:
        proposal = "taken out of the questions"
        file = answer_of("eval-file", args.eval_file, "Your eval questions", proposal)
        if file == proposal:
            files = {split: output.with_suffix(f".{split}.jsonl") for split in ("train", "eval")}
            check_free([*files.values()], args)
            train, evaluation = questions.divide(source, total, files)
            held_out = questions.count(evaluation)
            print(f"{evaluation.file}: {held_out} eval questions; {train.file}: the other {total - held_out}")
            return train, evaluation, total - held_out
        evaluation = questions.with_keys_that_exist(source.model_copy(update={"file": file}))

    settings = write.check_recipe(args.recipe).get(look.task) if args.recipe else {}
    of_eval = questions.looks_of(evaluation, [look.task], settings)[0]
    print(f"{evaluation.file} (eval): {of_eval.summary}.")
    return source, of_eval.source, total


def check_free(paths: list[Path], args: argparse.Namespace) -> None:
    """Raise BadInput if a file that is to be written exists."""
    existing = [str(path) for path in paths if path.exists()]
    if existing and not args.force:
        raise BadInput(
            f"{' and '.join(existing)}: this exists already; choose another --name, or replace it by --force"
        )


def name_of(args: argparse.Namespace, source: Split) -> str:
    """Return the name of the run."""
    stem = re.sub(r"[^A-Za-z0-9_.-]+", "-", Path(str(source.file)).name.split(".")[0]).strip("-.") or "mine"
    return answer_of("name", args.name, "A name for the run", stem)


def experiment_of(args: argparse.Namespace) -> write.Experiment:
    """Return what the config says, from the options and from what the user types."""
    look = chosen_look(args, train_source(args))
    model = answer_of("model", args.model, "The model (a folder, or a name on the hub)")
    facts = facts_of(model, may_be_unknown=args.template is not None)
    template = args.template or ("chat" if facts.has_chat_template else "deepseek")
    has_template = {True: "has a", False: "has no", None: "was not looked into for a"}[facts.has_chat_template]
    print(f"{model}: it {has_template} chat template; the config says `template: {template}`.")

    name = name_of(args, look.source)
    output = args.output or Path(f"{name}.yaml")
    check_free([output], args)
    train, evaluation, total = eval_source(args, look, output)
    gpus = len(candidate_gpus() or []) if args.gpus is None else args.gpus
    return write.Experiment(name, look.task, facts, template, train, evaluation, total, gpus, output)


def main() -> None:
    args = parse_arguments()
    experiment = experiment_of(args)
    text = write.recipe_config(args.recipe, experiment) if args.recipe else write.new_config(experiment)

    try:
        write.check_config(text, experiment.output)
    except ConfigError as error:
        raise BadInput(f"the options do not fit together:\n{error}") from None
    write_text(experiment.output, text)

    print(f"\n{experiment.output}: written. Next:")
    for command in (
        f"snakemake --profile local -n round1_checkpoint --configfile {experiment.output}",
        f"python -m workflow_scripts.plan round1_checkpoint --configfile {experiment.output}",
        f"snakemake --profile local round1_checkpoint --configfile {experiment.output}",
    ):
        print(f"  {command}")


if __name__ == "__main__":
    run(main)
