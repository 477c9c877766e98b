"""The stage train as it is run: several processes, references, schedules over rounds, foreign rows, curves."""

import pytest

from tests.workshop import Workshop, make_rows
from workflow_scripts import train
from workflow_scripts.core.errors import BadInput


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    return Workshop(tmp_path_factory.mktemp("workshop"))


@pytest.fixture(scope="module")
def plain(workshop):
    """Return two epochs by one process, and its log-prob file."""
    path = workshop.logp()
    return workshop.train("plain", "--logp", path, "--round", 1, epochs=2) | {"logp": path}


def test_the_first_update_of_a_round_has_ratio_one(plain):
    first = plain["history"][0]

    assert first["ratio"] == pytest.approx(1, abs=1e-5)
    assert first["ess"] == pytest.approx(1, abs=1e-5)
    assert first["clipped"] == 0
    assert first["foreign"] == 0
    assert plain["updates"] == 4
    assert sum(entry["reward"] for entry in plain["history"]) / 4 == pytest.approx(0.5)
    assert plain["history"][-1]["ratio_p95"] > 1.001


def test_the_kl_to_a_reference_begins_at_zero_and_holds_the_policy_back(workshop, plain):
    reference = ("--ref-logp", plain["logp"], "--reference", workshop.checkpoint)
    free = workshop.train("free", "--logp", plain["logp"], *reference, kl=1e-9, epochs=4)["history"]
    held = workshop.train("held", "--logp", plain["logp"], *reference, kl=5, epochs=4)["history"]

    assert held[0]["kl_reference"] == pytest.approx(0, abs=1e-6)
    assert 0 < held[-1]["kl_reference"] < free[-1]["kl_reference"] / 2


def test_the_reference_of_given_log_probs_must_be_named(workshop, plain):
    with pytest.raises(BadInput, match="--ref-logp: name with --reference the checkpoint"):
        workshop.train("refused", "--logp", plain["logp"], "--ref-logp", plain["logp"], kl=0.1)


# ---------------------------------------------------------------- across rounds


def test_carried_moments_continue_as_one_run(workshop):
    settings = {"objective": "sft", "batch_size": 16, "warmup": 0}
    whole = workshop.train("whole", **settings, epochs=2)
    first = workshop.train("first", "--round", 1, **settings, optimizer="carry")
    start = workshop.folder / "first/checkpoint.json"
    second = workshop.train("second", "--round", 2, model=start, **settings, optimizer="carry")
    fresh = workshop.train("fresh", "--round", 2, model=start, **settings)

    assert whole["updates"] == 2
    assert first["moments"] != second["moments"]
    assert "moments" not in fresh

    expected, *others = (workshop.model(name).state_dict() for name in ("whole", "second", "fresh"))
    carried, anew = (max((expected[name] - other[name]).abs().max().item() for name in other) for other in others)
    assert carried < 1e-6
    assert anew > 1e-4

    (start.parent / train.MOMENTS).write_bytes(b"other")
    with pytest.raises(BadInput, match=r"not the moments that .* was published with"):
        workshop.train("refused", "--round", 2, model=start, **settings, optimizer="carry")


def test_a_schedule_over_all_rounds_goes_on_where_the_last_round_ended(workshop):
    settings = {"objective": "sft", "schedule": "linear", "warmup": 0, "lr": 1, "updates_per_round": 2}
    rates = []
    for number in (1, 2):
        place = ("--round", number, "--rounds", 2)
        history = workshop.train("part", *place, **settings, schedule_over="rounds")["history"]
        rates += [entry["learning_rate"] for entry in history]

    assert rates == pytest.approx([1, 0.75, 0.5, 0.25])


def test_a_cosine_with_a_minimum_ends_at_a_tenth(workshop):
    settings = {"objective": "sft", "warmup": 0, "lr": 1, "updates_per_round": 2, "epochs": 4}
    cosine, with_minimum = (
        [entry["learning_rate"] for entry in workshop.train(schedule, **settings, schedule=schedule)["history"]]
        for schedule in ("cosine", "cosine_min")
    )
    assert with_minimum == pytest.approx([0.1 + 0.9 * rate for rate in cosine])


# ---------------------------------------------------------------- the effective sample size


def test_training_stops_when_the_effective_sample_size_is_too_small(workshop, plain):
    worn = workshop.train("worn", "--logp", plain["logp"], epochs=8, lr=0.05, min_ess=0.9)

    assert worn["updates"] < 16
    assert worn["stopped"]["update"] == worn["updates"]
    assert worn["stopped"]["ess"] < 0.9
    assert worn["history"][-1]["step"] == worn["updates"]
    assert worn["history"][-1]["ess"] < 0.9


@pytest.mark.parametrize(
    ("limit", "name"),
    [({"max_kl": 1e-3}, "kl"), ({"min_entropy": 3.0, "objective": "sft"}, "entropy")],
    ids=["max_kl", "min_entropy"],
)
def test_training_stops_when_the_policy_collapses(workshop, plain, limit, name):
    key, value = next(iter(limit.items()))
    stopped = workshop.train("collapsed", "--logp", plain["logp"], epochs=8, **{"lr": 0.01} | limit)
    logged = {"kl": "kl_behaviour", "entropy": "entropy"}[name]

    assert stopped["stopped"]["update"] == stopped["updates"] < 16
    assert stopped["stopped"][name] == pytest.approx(stopped["history"][-1][logged], rel=1e-5)
    assert (stopped["stopped"][name] > value) == (key == "max_kl")
    for earlier in stopped["history"][:-1]:
        assert (earlier[logged] <= value) == (key == "max_kl")


def test_a_run_that_had_stopped_stays_stopped_when_it_is_resumed(workshop, plain, monkeypatch):
    settings = {"epochs": 8, "lr": 0.05, "min_ess": 0.9}
    whole = workshop.train("worn", "--logp", plain["logp"], **settings)

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(train, "publish_round", interrupt)
        workshop.train("resumed", "--logp", plain["logp"], **settings)
    resumed = workshop.train("resumed", "--logp", plain["logp"], **settings)

    assert (resumed["updates"], resumed["stopped"]) == (whole["updates"], whole["stopped"])
    assert resumed["digest"] == whole["digest"]


# ---------------------------------------------------------------- foreign rows


def test_foreign_rows_have_no_ratio_unless_the_config_asks_for_a_proximal_one(tmp_path):
    workshop = Workshop(tmp_path)
    workshop.write([row | {"policy": "foreign"} for row in make_rows(16)])
    path = workshop.logp()

    one = workshop.train("one", "--logp", path, objective="ips", epochs=2)
    proximal = workshop.train("proximal", "--logp", path, objective="ips", epochs=2, foreign_ratio="proximal")

    assert one["foreign"] == proximal["foreign"] == 16
    assert one["history"][-1]["foreign"] == 1
    assert "ratio" not in one["history"][-1]
    assert proximal["history"][-1]["foreign"] == 0
    assert proximal["history"][-1]["ratio_p95"] > 1.001


# ---------------------------------------------------------------- curves


def test_curves_are_kept_offline(workshop, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("WANDB_SERVICE", "")  # wandb sets it, and what later tests start would share its process
    monkeypatch.delenv("WANDB_SERVICE")
    monkeypatch.setenv("WANDB_MODE", "offline")
    curves = workshop.folder / "wandb"

    workshop.train("curves", "--curves", curves, objective="sft")
    kept = list(curves.rglob("*.wandb"))
    assert len(kept) == 1
    assert b"grad_norm" in kept[0].read_bytes()

    monkeypatch.setenv("WANDB_MODE", "online")
    with pytest.raises(BadInput, match="WANDB_API_KEY"):
        workshop.train("more", "--curves", curves, objective="sft")


def test_without_a_folder_for_them_no_curves_are_kept(workshop, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")

    workshop.train("no_curves", objective="sft")

    assert not list((workshop.folder / "no_curves").rglob("*.wandb"))


def test_without_wandb_training_goes_on(workshop, monkeypatch, capsys):
    monkeypatch.setattr("workflow_scripts.training.tracking.find_spec", lambda name: None)
    monkeypatch.setenv("WANDB_MODE", "offline")

    assert workshop.train("bare", "--curves", workshop.folder / "wandb", objective="sft")["updates"] == 2
    assert "wandb is not installed" in capsys.readouterr().err
