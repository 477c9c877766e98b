"""Ids and shards of records follow from their content alone."""

from workflow_scripts.core.identity import record_id, shard_of


def test_a_shard_follows_from_the_id_alone():
    names = [f"id{i}" for i in range(1000)]
    shards = {name: shard_of(name, 4) for name in names}

    assert {name: shard_of(name, 4) for name in names[::2]} == {name: shards[name] for name in names[::2]}
    assert all(200 < list(shards.values()).count(shard) < 300 for shard in range(4))


def test_questions_that_read_alike_share_an_id():
    assert record_id("What  is\n3?") == record_id(" What is 3? ")
    assert record_id("What is 3?") != record_id("What is 4?")
