"""The end of a run: answers to one question over the rounds, and what to type next."""

from tests.overview.answers import answered
from workflow_scripts.core.files import write_json
from workflow_scripts.core.pickles import write_pickle
from workflow_scripts.overview.closing import closing
from workflow_scripts.overview.page.answers import reward_of


def test_the_answers_that_gain_most_are_shown_for_three_rounds(tmp_path):
    for round in range(5):
        answers = [answered(number, round, 0.0, f"no {round}") for number in range(4)]
        answers[2] |= {"reward": float(round > 0), "answer": f"yes {round}\nline"}
        write_pickle(tmp_path / f"evaluation/r{round}/1_0_matchlog.pkl", answers)

    text = "\n".join(closing(tmp_path, None))

    assert text.startswith("What is 2?  (reference: 2)")
    assert "  round 0  ✗  yes 0\n              line\n  round 1  ✓  yes 1" in text
    assert "round 4  ✓" in text and "round 2 " not in text
    assert "-n round6_checkpoint" in text and "trace q2.auto.0" in text


def test_a_finished_run_ends_with_the_table_the_page_answers_and_commands(finished):
    output = (finished.folder / "output.txt").read_text()

    table = output.index("accuracy / share of answers with code")
    page = output.index("Open runs/arithmetic/report/report.html")
    assert table < output.index("  round 0  ") < output.index("  round 1  ") < page < output.index("What to type next:")
    assert finished.path("report/report.html").exists()


def test_an_undecided_reward_is_shown_by_the_tasks_own():
    assert reward_of({"reward": None, "grade": 1.0}) == 1.0
    assert reward_of({"reward": 0.25, "grade": 1.0}) == 0.25
    assert reward_of({"reward": 0.5}) == 0.5


def test_what_to_type_next_names_the_config_of_the_run(tmp_path):
    arguments = ["round1_checkpoint", "--profile", "local", "--configfile", "my sums.yaml"]
    note = {"host": "here", "pid": 1, "born": "1", "started": 1.0, "arguments": arguments}
    write_json(tmp_path / "driver.json", note)

    lines = list(closing(tmp_path, None))

    assert any(" -n round1_checkpoint --configfile 'my sums.yaml' " in line for line in lines)
