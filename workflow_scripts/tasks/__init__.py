"""What is learnt: one module per task. A new task is one file here.

A task is a module with these names (tasks/math.py has them all, documented):

    MAKES_UP                            whether it makes up prompts and worked examples by `count`
    FIGURES                             {figure: (label, format)} of an evaluation; progress is judged by the first
    GRADED                              a key that all verdicts have
    STOP                                strings after which the policy waits for the environment
    read_prompts(split, prompts, name, seed)   the prompts of a split: id, question, answer, level
    worked_examples(cold_start, seed)   the cold start's texts (tasks that make them up, or read a file)
    requests(question, version)         what is asked, by trigger
    reply(text, run)                    the environment's turn, or None when the answer is complete
    environment(settings, catalogue, version, ledger)   where another speaker answers each turn: takes the place of the
                                        sandbox as `run`, with `replies` in place of `reply` (tasks/recommend.py)
    segments(text)                      an imported answer as (text, sampled by a policy?) pieces
    grade(record, run)                  verdicts; `run` runs a program in the sandbox
    tally(records, earlier)             figures of graded answers, and of the verdicts that they had before
    construct_meta(records, dedup)      graded answers by question
    counts(meta)                        what the meta's manifest says of it
    select(metas, settings, seed, encode)   the training rows of a round
    summarise(records)                  the evaluation's figures; `before` in a record is the round before's answer, for
                                        tasks with the figure win_rate

A task's module is imported by name and belongs to the code digests of the stages that use it, so a change in one
task leaves the other recipes' results alone.
"""

import importlib
from pathlib import Path

from workflow_scripts.core.records import BadInput


def load(name: str):
    known = sorted(path.stem for path in Path(__file__).parent.glob("[!_]*.py"))
    if name not in known:
        raise BadInput(f"there is no task {name!r}; tasks are: {', '.join(known)}")
    return importlib.import_module(f"workflow_scripts.tasks.{name}")
