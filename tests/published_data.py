"""Write small data in the formats that the data sets of the recipes are published in, under the recipes' own names.

    python -m tests.published_data FOLDER

A recipe that is run in FOLDER then finds all data that it names: files, folders, and data sets of the hub as folders
that `datasets` saved. The contents are made up here. Names of columns and the form of their values are the published
ones.
"""

import csv
import json
import random
import sys
from pathlib import Path
from typing import Any

import yaml

from workflow_scripts.core.files import write_dataset, write_parquet

RECIPES = Path(__file__).resolve().parents[1] / "recipes"
ROWS = 96
NAMES = ("Natalia", "Weng", "Betty", "Julie", "James", "Mark", "Albert", "Ken")
THINGS = ("clips", "apples", "pages", "letters", "flowers", "marbles", "pencils", "eggs")

Record = dict[str, Any]


def write_lines(path: Path, records: list[Record]) -> None:
    """Write JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))


# ---------------------------------------------------------------- questions with a number as the answer


def word_problem(rng: random.Random, number: int) -> tuple[str, list[str], int]:
    """Return (question, steps of the solution, answer)."""
    name = rng.choice(NAMES)
    thing = rng.choice(THINGS)
    a, b, c = (rng.randint(2, 60) for _ in range(3))
    question = (
        f"{name} has {a} {thing} in box {number + 1} and buys {b} more. Each of {c} friends brings as many again. "
        f"How many {thing} are there in the end?"
    )
    first = a + b
    total = first * (c + 1)
    steps = [
        f"{name} has {a} + {b} = <<{a}+{b}={first}>>{first} {thing}.",
        f"With {c} friends there are {first} * {c + 1} = <<{first}*{c + 1}={total}>>{total} {thing}.",
    ]
    return question, steps, total


def gsm8k(seed: int) -> list[Record]:
    """Return records of GSM8K: the answer ends with `#### ` and the number."""
    rng = random.Random(seed)
    records = []
    for number in range(ROWS):
        question, steps, total = word_problem(rng, 1000 * seed + number)
        records.append({"question": question, "answer": "\n".join([*steps, f"#### {total:,}"])})
    return records


def autocode_seed() -> list[Record]:
    """Return records of AutoCode's seed data: question, solution, the data set it comes from, final answer."""
    rng = random.Random(1)
    sources = ("MetaMath", "MAmmoTH", "MMOS", "OpenMath")
    records = []

    for number in range(ROWS):
        question, steps, total = word_problem(rng, number)
        solution = " ".join(steps) + f"\nThe answer is: {total}"
        if number % 3 == 0:
            program = f"```python\nprint({total})\n```\n```output\n{total}\n```\n"
            solution = f"{steps[0]}\n{program}The answer is \\boxed{{{total}}}."
        records.append({"q": question, "a": solution, "s": sources[number % 4], "gold": str(total)})

    return records


def math_test() -> list[Record]:
    """Return records of MATH as AutoCode has them: LaTeX in the question, the final answer alone."""
    rng = random.Random(2)
    records = []

    for _ in range(ROWS // 2):
        a, b = rng.randint(2, 9), rng.randint(11, 99)
        kind = rng.randrange(3)
        if kind == 0:
            question, answer = f"What is $\\frac{{{a}}}{{{b}}}$ in lowest terms?", f"\\frac{{{a}}}{{{b}}}"
        elif kind == 1:
            question, answer = f"Simplify $\\sqrt{{{a * a * b}}}$.", f"{a}\\sqrt{{{b}}}"
        else:
            question, answer = f"Compute ${a}^3 + {b}$.", str(a**3 + b)
        records.append({"question": question, "answer": answer})

    unique = {record["question"]: record for record in records}
    return list(unique.values())


# ---------------------------------------------------------------- programs


def coding_question(rng: random.Random, number: int) -> tuple[str, str, list[str]]:
    """Return (question, solution, tests) of a question like HumanEval's."""
    a, b = rng.randint(2, 9), rng.randint(1, 20)
    name = f"combine_{number}"
    question = f'def {name}(values):\n    """Return the sum of {a} times each value, plus {b}."""\n'
    solution = f"def {name}(values):\n    return sum({a} * value for value in values) + {b}\n"
    tests = [f"assert {name}({values}) == {a * sum(values) + b}" for values in ([1, 2], [], [5], [-1, 4])]
    return question, solution, tests


def rewarded_answers() -> list[Record]:
    """Return CodeRL's rows: four answers to each question, with their rewards, and two rows that cannot be used."""
    rng = random.Random(3)
    records = []

    for number in range(ROWS // 4):
        question, solution, _ = coding_question(rng, number)
        prompt = [{"role": "user", "content": question}, {"role": "assistant", "content": "```python\n"}]
        for sample in range(4):
            is_right = sample % 2 == 0
            program = solution if is_right else solution.replace("sum", "max")
            records.append(
                {
                    "uid": f"{number}_{sample}",
                    "prompt_pretokenized": json.dumps(prompt),
                    "unprocessed_response": f"{program}# {sample}\n```",
                    "accuracy": float(is_right),
                    "normalized_reward": 1.0 if is_right else -1.0,
                }
            )

    records[5]["unprocessed_response"] = ""
    records[9]["normalized_reward"] = None
    return records


def humaneval() -> list[Record]:
    """Return records of HumanEval: the beginning of a function, and a function `check` with assert statements."""
    rng = random.Random(4)
    records = []

    for number in range(24):
        question, solution, tests = coding_question(rng, 1000 + number)
        name = f"combine_{1000 + number}"
        checks = "".join(f"    {test.replace(name, 'candidate')}\n" for test in tests)
        records.append(
            {
                "task_id": f"HumanEval/{number}",
                "prompt": question,
                "canonical_solution": solution.partition(":\n")[2],
                "test": f"def check(candidate):\n{checks}",
                "entry_point": name,
            }
        )

    return records


# ---------------------------------------------------------------- tables


def write_table(path: Path, seed: int, name: str, rows: int) -> None:
    """Write a table with a header: numbers, categories with and without gaps, and a label as the last column."""
    rng = random.Random(f"{name}.{seed}")
    header = ["Age", "Sex", "ChestPainType", "Cholesterol", "OldPeak", "Vessels", f"{name}_status"]
    path.parent.mkdir(parents=True, exist_ok=True)

    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for _ in range(rows):
            age = rng.randint(29, 77)
            cholesterol = rng.randint(120, 420)
            pain = rng.choice(["Asymptomatic", "NonAnginal", "TypicalAngina"])
            is_ill = age + cholesterol / 10 + 15 * (pain == "Asymptomatic") + rng.gauss(0, 8) > 92
            cells = [float(age), rng.choice(["Male", "Female"]), pain, float(cholesterol)]
            cells += [round(rng.random() * 4, 1), rng.choice([0.0, 1.0, 2.0, ""])]
            writer.writerow([*cells, "disease" if is_ill else "healthy"])


def write_tables(folder: Path, datasets: dict[str, Record]) -> None:
    """Write all files of the data sets of the recipe `tabular`."""
    for name, files in datasets.items():
        for number, (key, path) in enumerate(sorted(files.items())):
            if isinstance(path, str) and path.endswith(".csv"):
                write_table(folder / path, number, name, rows=160 if key == "train" else 48)


# ---------------------------------------------------------------- dialogues

WORDS = ("Silent", "Last", "Golden", "Blue", "Distant")
FILMS = [f"{word} {place} ({1980 + 7 * i})" for i, word in enumerate(WORDS) for place in ("Harbour", "Winter", "Road")]
FILMS += [f"The {film}" for film in FILMS]
INSPIRED = (
    "dialog_id utt_id speaker turn_id text text_with_placeholder movies genres people_names movie_dict genre_dict "
    "actor_dict director_dict others_dict expert_label second_label fine_label coarse_label movie_id"
).split()


def inspired_lines(seed: int, dialogues: int) -> list[Record]:
    """Return the utterances of dialogues as in INSPIRED. Every tenth seeker rejects what is recommended."""
    rng = random.Random(seed)
    lines = []

    for number in range(dialogues):
        liked, target = rng.sample(FILMS, 2)
        talk = [
            ("RECOMMENDER", "Hello, what do you like to watch?", ""),
            ("SEEKER", f"I liked {liked} very much, number {number}.", liked),
            ("RECOMMENDER", "And which genre do you like?", ""),
            ("SEEKER", rng.choice(["Dramas, mostly.", "Something funny.", "Anything that is old."]), ""),
            ("RECOMMENDER", f"You should watch {target}.", target),
            ("SEEKER", "That sounds good.", ""),
        ]
        label = "reject" if number % 10 == 9 else "accept_rating_good"
        for place, (speaker, text, films) in enumerate(talk, 1):
            known = {
                "dialog_id": f"2019{seed:02}-{number:03}_live.pkl",
                "utt_id": place,
                "speaker": speaker,
                "turn_id": (place + 1) // 2,
                "text": text,
                "movies": films,
                "movie_dict": str({liked: 0, target: 1}),
                "fine_label": label,
                "coarse_label": "accept_new" if label != "reject" else "reject",
            }
            lines.append(dict.fromkeys(INSPIRED, "") | known)

    return lines


def write_inspired(path: Path, seed: int, dialogues: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, INSPIRED, delimiter="\t")
        writer.writeheader()
        writer.writerows(inspired_lines(seed, dialogues))


def redial() -> list[Record]:
    """Return dialogues of ReDial: films are @numbers in the text, and both speakers say what was liked."""
    rng = random.Random(6)
    records = []

    for number in range(20):
        films = {str(100 + i): FILMS[i] for i in rng.sample(range(len(FILMS)), 2)}
        seen, target = films
        answers = {film: {"suggested": int(film == target), "seen": 0, "liked": 1} for film in films}
        texts = [
            (0, f"Hi, I like @{seen}"),
            (1, "And what else?"),
            (0, "Old films."),
            (1, f"Try @{target}"),
            (0, "Thanks!"),
        ]
        records.append(
            {
                "conversationId": str(number),
                "initiatorWorkerId": 0,
                "respondentWorkerId": 1,
                "movieMentions": films,
                "initiatorQuestions": answers,
                "respondentQuestions": answers,
                "messages": [
                    {"messageId": i, "senderWorkerId": who, "text": text, "timeOffset": i}
                    for i, (who, text) in enumerate(texts)
                ],
            }
        )

    return records


# ---------------------------------------------------------------- instructions with references


def pool(seed: int, rows: int) -> list[Record]:
    """Return instructions as in BLEUBERI's Tulu 3 pool: messages, a reference by each model."""
    rng = random.Random(seed)
    records = []

    for number in range(rows):
        thing = rng.choice(THINGS)
        count = rng.randint(3, 9)
        owner = rng.choice(NAMES)
        question = f"Write {count} short tips on how to keep {thing} fresh for {number + 2} days in {owner}'s shop."
        tips = [f"{i + 1}. Keep the {thing} in a {rng.choice(['cool', 'dry', 'dark'])} place." for i in range(count)]
        records.append(
            {
                "id": f"{seed}_{number}",
                "source": rng.choice(["ai2-adapt-dev/flan_v2_converted", "ai2-adapt-dev/no_robots_converted"]),
                "messages": [{"role": "user", "content": question}],
                "prompt": question,
                "ref_output_gold": "\n".join(tips),
                "ref_output_Llama-3.1-8B-Instruct": "Here are some tips:\n" + "\n".join(reversed(tips)),
            }
        )

    return records


def sft_rows(records: list[Record]) -> list[Record]:
    """Return the rows that recipes/reference.yaml makes of selected prompts for supervised training."""
    rows = []
    for record in records:
        answer = {"role": "assistant", "content": record["ref_output_gold"]}
        rows.append({"id": f"{record['id']}_0", "source": record["source"], "messages": [*record["messages"], answer]})
    return rows


# ---------------------------------------------------------------- all of it


def write_all(folder: Path) -> None:
    """Write the data of all recipes into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / "data"
    data.mkdir(exist_ok=True)

    (data / "autocode_seed.json").write_text(json.dumps(autocode_seed()))
    (data / "MATH.json").write_text(json.dumps(math_test()))
    write_lines(data / "gsm8k.jsonl", gsm8k(2))
    write_dataset(folder / "openai/gsm8k", train=gsm8k(1), test=gsm8k(2))

    write_parquet(data / "acecode_rewarded.parquet", rewarded_answers())
    write_dataset(folder / "openai/openai_humaneval", test=humaneval())

    tabular = yaml.safe_load((RECIPES / "tabular.yaml").read_text())["tabular"]
    write_tables(folder, tabular["datasets"])

    write_inspired(data / "inspired/train.tsv", 1, 40)
    write_inspired(data / "inspired/test.tsv", 2, 20)
    write_lines(data / "redial/train_data.jsonl", redial())

    write_dataset(folder / "yapeichang/BLEUBERI-Tulu3-50k", train=pool(1, ROWS))
    write_lines(data / "bleuberi_eval.jsonl", pool(2, 24))
    source = yaml.safe_load((RECIPES / "reference-sft.yaml").read_text())["data"]["source"]["file"]
    write_dataset(folder / source, train=sft_rows(pool(3, 40)))


if __name__ == "__main__":
    write_all(Path(sys.argv[1]))
