"""The table of a run's rounds."""

from workflow_scripts.core.files import write_json
from workflow_scripts.report import rounds_of


def rounds(folder, *finishes: dict) -> list[dict]:
    """Return the table of a run whose rounds' eval answers ended like this."""
    for number, counts in enumerate(finishes):
        (folder / f"evaluation/r{number}").mkdir(parents=True)
        write_json(folder / f"evaluation/r{number}/1_0.json", {"finishes": counts})
        write_json(folder / f"evaluation/r{number}/1_0_matchlog.json", {"rows": 4})
        write_json(folder / f"evaluation/r{number}.json", {"round": number, "accuracy": 0.5, "by_level": {}, "n": 4})
    return rounds_of(folder, ["accuracy"])


def test_the_share_of_answers_that_were_cut_off_is_shown_if_there_are_any(tmp_path):
    rows = rounds(tmp_path / "some", {"eos": 4}, {"eos": 3, "length": 1})
    assert [row["cut_off"] for row in rows] == [0.0, 0.25]

    rows = rounds(tmp_path / "none", {"eos": 4}, {"turns": 4})
    assert not any("cut_off" in row for row in rows)
