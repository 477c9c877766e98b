"""The openai engine against a real server (transformers serve, a tiny model) behind a proxy that injects faults."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import httpx2
import openai
import pytest

from tests.engines.endpoint import PRICES, chats, engine, question, settings
from tests.engines.faulty_proxy import FaultyProxy
from tests.harness import NOTHING_TO_DO, REPOSITORY, tiny_config, wait_for
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import read_json
from workflow_scripts.core.pickles import read_pickle
from workflow_scripts.core.records import read_records
from workflow_scripts.core.running.ledger import Ledger
from workflow_scripts.engines import Chat
from workflow_scripts.engines._client import _seconds, is_transient
from workflow_scripts.init_model import make_model, train_tokenizer

SCRATCH = {"layers": 1, "width": 32, "heads": 2, "mlp_width": 64, "context": 256, "init_std": 0.3}
NOWHERE = "http://127.0.0.1:9/v1"


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    """Return a model with random weights. Every second token ends an answer: some are short, empty or cut off."""
    path = tmp_path_factory.mktemp("served")
    tokenizer = train_tokenizer(["What is 3 + 4? The answer is 7."] * 10, 300)
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"

    served = make_model(SCRATCH, tokenizer, 0)
    served.generation_config.eos_token_id = list(range(0, 300, 2))
    served.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return str(path)


@pytest.fixture(scope="module")
def server(model):
    """Yield the port of a server of the model."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", model, "--device", "cpu"]
    process = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    for _ in range(300):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1)
            break
        except (urllib.error.URLError, OSError):
            assert process.poll() is None, "transformers serve did not start"
            time.sleep(0.2)

    yield port
    process.kill()
    process.wait()


def start_client(code: str, *arguments: str) -> subprocess.Popen:
    """Start a process that has the functions of tests/engines/endpoint.py."""
    return subprocess.Popen(
        [sys.executable, "-c", f"from tests.engines.endpoint import *\n{code}", *arguments],
        cwd=REPOSITORY,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
    )


def states(folder: Path) -> dict[str, set[str]]:
    """Return what a ledger says of each attempt: asked, then failed or text, or nothing more if it was killed."""
    attempts: dict[str, set[str]] = {}

    for key, entry in Ledger(folder, "1_0").entries():
        attempts.setdefault(entry.get("attempt", key), set()).update({"asked", "failed", "text"} & set(entry))

    return attempts


# ---------------------------------------------------------------- answers


@pytest.mark.long
def test_a_thousand_requests_through_faults(server, model, tmp_path):
    proxy = FaultyProxy(server, share=0.3)
    started = time.monotonic()
    running = engine(tmp_path, settings(proxy.url, model, concurrency=32))
    replies = running.generate(chats(1000))
    seconds = time.monotonic() - started

    assert len(replies) == 1000
    assert seconds < 300
    assert min(proxy.faults[kind] for kind in ("429", "500", "502", "timeout", "reset", "sent twice")) > 0
    assert [reply.text for reply in replies] == [proxy.sent[question(chat)] for chat in chats(1000)]
    assert {reply.rejected for reply in replies} >= {None, "cut off at max_tokens"}
    assert all(reply.rejected or reply.text.strip() for reply in replies)

    answered = [(key, entry["attempt"]) for key, entry in Ledger(tmp_path, "1_0").entries() if "text" in entry]
    keys, attempts = map(set, zip(*answered))
    assert len(answered) == len(keys) == len(attempts) == 1000
    print(f"{seconds:.1f} s, {dict(proxy.faults)}, spent {running.account.spent:.6f}")


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("refusal", "refused: I cannot help with that."),
        ("content_filter", "ended by content_filter"),
        ("400 content_filter", "ended by content_filter"),
        ("empty", "empty"),
    ],
)
def test_an_unusable_answer_is_rejected_with_its_reason(server, model, tmp_path, kind, reason):
    proxy = FaultyProxy(server, share=1.0, kinds=(kind,))
    replies = engine(tmp_path, settings(proxy.url, model)).generate(chats(2))

    assert [reply.rejected for reply in replies] == [reason] * 2
    assert sum(proxy.asked.values()) == 2  # it is an answer all the same, so the request is not sent again


def test_what_follows_a_stop_string_is_cut(server, model, tmp_path):
    proxy = FaultyProxy(server)
    engine(tmp_path / "a", settings(proxy.url, model)).generate(chats(40, max_tokens=40))
    whole = next(text for text in proxy.sent.values() if len(text) > 2)
    stop = whole[1]

    stopping = engine(tmp_path / "b", settings(proxy.url, model), stop=(stop,))
    replies = dict(zip(map(question, chats(40)), stopping.generate(chats(40, max_tokens=40))))

    cut = next(replies[prompt] for prompt, text in proxy.sent.items() if text == whole)
    assert cut.text == whole[: whole.index(stop) + 1]
    assert (cut.finish, cut.rejected) == ("stop", None)


# ---------------------------------------------------------------- money


def test_an_answer_without_usage_counts_at_its_bound(server, model, tmp_path):
    silent = engine(tmp_path / "a", settings(FaultyProxy(server, 1.0, ("no usage",)).url, model))
    told = engine(tmp_path / "b", settings(FaultyProxy(server).url, model))

    for running in (silent, told):
        running.generate(chats(3))

    assert 0 < told.account.spent < silent.account.spent
    assert silent.account.spent == sum(map(silent._bound, chats(3)))


def test_the_budget_stops_cleanly_and_resumes_when_raised(server, model, tmp_path):
    proxy = FaultyProxy(server)
    free = engine(tmp_path / "free", settings(proxy.url, model))
    free.generate(chats(60))
    whole = free.account.spent
    proxy.asked.clear()

    halved = engine(tmp_path / "paid", settings(proxy.url, model, budget=whole / 2), purpose="teaching")
    with pytest.raises(BadInput, match=r"the budget is reached.* for teaching\).*Raise `budget`") as stopped:
        halved.generate(chats(60))
    halved.close()
    done = sum(proxy.asked.values())
    assert f"{done} of 60 requests are answered" in str(stopped.value)
    assert 10 < done < 60

    resumed = engine(tmp_path / "paid", settings(proxy.url, model, budget=whole * 2), purpose="teaching")
    assert resumed.account.spent <= whole / 2
    assert len(resumed.generate(chats(60))) == 60
    assert sum(proxy.asked.values()) == 60
    assert resumed.account.spent == pytest.approx(whole)


# ---------------------------------------------------------------- processes


def test_kill_9_repeats_no_answered_request(server, model, tmp_path):
    proxy = FaultyProxy(server, share=0.2, kinds=("500", "reset", "no choices"))
    arguments = f"settings({proxy.url!r}, {model!r}, concurrency=8)"
    child = start_client(f"engine({str(tmp_path)!r}, {arguments}).generate(chats(300))")
    while len(proxy.sent) < 120:
        assert child.poll() is None, child.communicate()[1]
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.communicate()

    resumed = engine(tmp_path, settings(proxy.url, model))
    known, before = set(resumed.answers), dict(proxy.asked)
    assert 80 < len(known) < 300
    assert {"asked"} in states(tmp_path).values()  # requests in flight are charged at their bound

    assert len(resumed.generate(chats(300))) == 300
    assert list(states(tmp_path).values()).count({"asked", "text"}) == 300
    for chat in chats(300):
        if resumed._digest(chat) in known:
            prompt = question(chat)
            assert proxy.asked[prompt] == before[prompt], f"{prompt} was answered, and the request was sent again"


def start_shards(folder: Path, count: int, requests: int, arguments: str) -> list[subprocess.Popen]:
    """Start processes that send different requests by one ledger, as the shards of a round do, all at once."""
    code = f"""
import pathlib, sys, time
shard = engine({str(folder)!r}, settings({arguments}))
own = [Chat([{{"role": "user", "content": f"{{sys.argv[1]}}: {{i}} + 4?"}}], i, 4) for i in range({requests})]
pathlib.Path({str(folder)!r}, f"ready{{sys.argv[1]}}").touch()
while not pathlib.Path({str(folder)!r}, "go").exists():
    time.sleep(0.01)
shard.generate(own)
"""
    processes = []
    for number in range(count):
        processes.append(start_client(code, str(number)))
    wait_for(lambda: len(list(folder.glob("ready*"))) == count)
    (folder / "go").touch()
    return processes


def ended(processes: list[subprocess.Popen]) -> list[str]:
    """Wait for processes and return what they printed."""
    return [process.communicate(timeout=120)[1] for process in processes]


def test_parallel_jobs_share_a_rate_and_use_it(server, model, tmp_path):
    proxy = FaultyProxy(server)
    shards = start_shards(tmp_path, 3, 12, f"{proxy.url!r}, {model!r}, requests_per_minute=240, concurrency=4")
    printed = ended(shards)
    assert [shard.returncode for shard in shards] == [0, 0, 0], printed

    seconds = proxy.times[-1] - proxy.times[0]
    rate = 60 * (len(proxy.times) - 1) / seconds
    assert len(proxy.times) == 36
    assert 0.6 * 240 <= rate <= 1.05 * 240


def test_parallel_jobs_share_places_and_a_killed_one_leaves_its_own(server, model, tmp_path):
    proxy = FaultyProxy(server, delay=0.3)
    shards = start_shards(tmp_path, 3, 8, f"{proxy.url!r}, {model!r}, concurrency=2")
    wait_for(lambda: len(proxy.sent) >= 4)
    assert proxy.most_at_once <= 2
    shards[0].send_signal(signal.SIGKILL)
    printed = ended(shards)

    assert [shard.returncode for shard in shards[1:]] == [0, 0], printed
    assert 2 <= proxy.most_at_once <= 4  # the server may still hold two requests of the killed client


def test_parallel_jobs_share_a_budget(server, model, tmp_path):
    proxy = FaultyProxy(server)
    free = engine(tmp_path / "free", settings(proxy.url, model))
    free.generate(chats(20))
    budget = free.account.spent / 2

    shards = start_shards(tmp_path, 3, 20, f"{proxy.url!r}, {model!r}, budget={budget!r}, concurrency=4")
    printed = ended(shards)
    assert all("the budget is reached" in text for text in printed)

    reader = engine(tmp_path, settings(proxy.url, model))
    longest = Chat([{"role": "user", "content": "2: 19 + 4?"}], 19, 4)
    assert budget - reader._bound(longest) < reader.account.spent <= budget


# ---------------------------------------------------------------- errors and limits


def test_errors_that_no_retry_mends_are_told_at_once(server, model, tmp_path, monkeypatch):
    url = FaultyProxy(server).url
    with pytest.raises(BadInput, match=r"the endpoint refuses the request: .*\n0 of 3 requests are answered"):
        engine(tmp_path, settings(url + "/nowhere", model)).generate(chats(3))

    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(BadInput, match="NO_SUCH_KEY is not set"):
        engine(tmp_path, settings(url, model, key_env="NO_SUCH_KEY"))


def test_limits_hold(server, model, tmp_path):
    proxy = FaultyProxy(server)

    started = time.monotonic()
    engine(tmp_path / "a", settings(proxy.url, model, requests_per_minute=600)).generate(chats(21))
    assert time.monotonic() - started >= 2.0  # 20 gaps of a tenth of a second

    started = time.monotonic()
    engine(tmp_path / "b", settings(proxy.url, model, tokens_per_minute=6000)).generate(chats(11))
    assert time.monotonic() - started >= 10 * (4 + 15) / 100


def test_retry_after_is_seconds_or_a_date():
    date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 30))

    assert _seconds("2.5") == 2.5
    assert _seconds(None) == _seconds("soon") == 0
    assert 28 < _seconds(date) <= 30


@pytest.mark.parametrize(("code", "transient"), [("rate_limit_exceeded", True), ("insufficient_quota", False)])
def test_an_exhausted_quota_is_not_retried(code, transient):
    request = openai.DefaultHttpxClient().build_request("POST", "http://x")
    error = openai.RateLimitError("no", response=httpx2.Response(429, request=request), body={"code": code})

    assert is_transient(error) == transient


# ---------------------------------------------------------------- a teacher


@pytest.mark.long
def test_a_teacher_answers_in_the_policys_place(server, model, fork, monkeypatch):
    target = "runs/arithmetic/results/r1/auto/2_0.pkl"
    endpoint = {"base_url": FaultyProxy(server).url, "model": model, "key_env": "TEST_KEY", "prices": PRICES}
    config = tiny_config()

    def configure(budget: float) -> None:
        config["generate"] |= {"openai": endpoint | {"budget": budget}}
        config["generate"]["auto"] |= {"engine": "openai"}
        fork.configure(config)

    configure(0.001)
    assert "TEST_KEY is not set" in fork.snakemake(target, fails=True)
    monkeypatch.setenv("TEST_KEY", "a-secret-that-is-nowhere")
    assert "the budget is reached" in fork.snakemake(target, fails=True)
    configure(1.0)
    assert "requests are answered already" in fork.snakemake(target)

    rows = read_pickle(fork.folder / target)
    rejects = list(read_records(fork.folder / target.replace(".pkl", ".rejects.jsonl")))
    manifest = read_json(fork.folder / target.replace(".pkl", ".json"))
    assert rows
    assert len(rows) + len(rejects) == 4 * manifest["prompts"]
    assert all(row["policy"] == "foreign" and row["sampled_logps"] == [] and row["tokens"] for row in rows)
    assert sum(manifest["rejects"].values()) == len(rejects)
    assert manifest["policy"] == "foreign"

    configure(2.0)
    assert NOTHING_TO_DO in fork.snakemake("-n", target)

    texts = [path.read_bytes() for path in fork.folder.rglob("*") if path.is_file() and path.suffix != ".pkl"]
    assert not any(b"a-secret-that-is-nowhere" in text for text in texts)
