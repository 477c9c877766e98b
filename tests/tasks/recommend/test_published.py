"""ReDial and INSPIRED as folders of `datasets` and as the hub has them: the dialogues are those of the files."""

import csv
import json
import os

import datasets
import pytest

from tests.tasks.recommend.test_workflow import MOVIES, NAMES, SEEKS, frozen, inspired, redial
from workflow_scripts.config.sections import Split
from workflow_scripts.core.files import write_parquet
from workflow_scripts.tasks.recommend.prompts import Prompts
from workflow_scripts.tasks.recommend.readers import read_dialogues

INSPIRED_DEV = os.environ.get("INSPIRED_DEV", "data/inspired/dev.tsv")


def as_on_the_hub(record: dict) -> dict:
    """Return a record of ReDial with lists in place of objects by film, as in the data set on the hub."""
    films = [{"movieId": number, "movieName": title} for number, title in record["movieMentions"].items()]
    lists = {"movieMentions": films}
    for key in ("initiatorQuestions", "respondentQuestions"):
        blank = {"suggested": 0, "seen": 2, "liked": 2}
        lists[key] = [{"movieId": number, **blank, **answers} for number, answers in record[key].items()]
    return record | lists


def test_redial_on_the_hub_is_redial_in_the_file(tmp_path):
    records = [redial(0), redial(1, initiatorQuestions={}), redial(2)]
    (tmp_path / "train_data.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    rows = datasets.Dataset.from_list([as_on_the_hub(record) for record in records])
    datasets.DatasetDict(train=rows, test=rows.select([0])).save_to_disk(tmp_path / "re_dial")

    dialogues = list(read_dialogues(str(tmp_path / "re_dial")))
    assert dialogues == list(read_dialogues(str(tmp_path / "train_data.jsonl")))
    assert [dialogue["target_items"] for dialogue in dialogues] == [["Joker (2019)"], [], ["Joker (2019)"]]
    good, rejects = frozen(tmp_path, tmp_path / "re_dial")
    assert len(good) == 1
    assert [reject["reason"] for reject in rejects] == [
        "no target item",
        "the question occurs before",
    ]


def test_redial_in_the_hubs_layout_may_have_subsets(tmp_path):
    for name, count in (("one", 1), ("two", 2)):
        (tmp_path / "hub" / name).mkdir(parents=True)
        rows = [as_on_the_hub(redial(number)) for number in range(count)]
        write_parquet(tmp_path / "hub" / name / "train-00000-of-00001.parquet", rows)
    configs = "".join(f"- config_name: {name}\n  data_files: {name}/*\n" for name in ("one", "two"))
    (tmp_path / "hub/README.md").write_text(f"---\nconfigs:\n{configs}---\n")

    source = Split(file=str(tmp_path / "hub"), subset="two").model_dump(mode="json")
    assert len(list(Prompts({}, {}).read(source, "pool", 0))) == 2


def save_with_empty_cells(file, folder) -> None:
    """Save a .tsv as `datasets` reads it: an empty cell is None."""
    with open(file, newline="") as text:
        rows = [{name: cell or None for name, cell in row.items()} for row in csv.DictReader(text, delimiter="\t")]
    datasets.Dataset.from_list(rows).save_to_disk(folder)


def test_inspired_in_a_folder_is_inspired_in_the_file(tmp_path):
    file = inspired(tmp_path, ([*SEEKS, NAMES, ("SEEKER", "Fine.", "")], "accept_others", MOVIES))
    save_with_empty_cells(file, tmp_path / "folder")
    dialogues = list(read_dialogues(str(tmp_path / "folder")))
    assert dialogues == list(read_dialogues(str(file)))
    assert dialogues[0]["target_items"] == ["Full Metal Jacket (1987)"] and not dialogues[0]["fault"]


@pytest.mark.skipif(not os.path.exists(INSPIRED_DEV), reason="INSPIRED_DEV names no file: the published dev.tsv")
def test_the_published_dev_split(tmp_path):
    dialogues = list(read_dialogues(INSPIRED_DEV))
    faults = [dialogue["fault"] for dialogue in dialogues if dialogue["fault"]]
    assert len(dialogues) == 99 and len(faults) == 4
    save_with_empty_cells(INSPIRED_DEV, tmp_path / "folder")
    assert list(read_dialogues(str(tmp_path / "folder"))) == dialogues
