"""The openai engine against a real server (transformers serve, a tiny model) behind a proxy that injects faults."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import httpx2
import openai
import pytest
from conftest import REPOSITORY, tiny_config
from faulty_proxy import FaultyProxy

from workflow_scripts.core.ledger import Ledger
from workflow_scripts.core.records import BadInput, read_json, read_pickle, read_records
from workflow_scripts.core.sections import OpenAI
from workflow_scripts.engines import Chat, load
from workflow_scripts.engines.openai import _seconds, is_transient
from workflow_scripts.init_model import make_model, train_tokenizer

SCRATCH = {"layers": 1, "width": 32, "heads": 2, "mlp_width": 64, "context": 256, "init_std": 0.3}
PRICES = {"input": 2.0, "cached": 0.5, "output": 8.0}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Random weights, and every second token ends an answer: short answers, some empty, some cut off."""
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
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", model, "--device", "cpu"]
    process = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
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


def settings(url, model, **changes):
    values = {"base_url": url, "model": model, "key_env": None, "prices": PRICES, "timeout": 2.0}
    return OpenAI(**values | changes).model_dump()


def engine(folder, settings, stop=(), purpose="test"):
    return load(
        "openai", settings=settings, sampling={"temperature": 0, "top_p": 1.0}, stop=stop,
        ledger=Ledger(folder, "1_0"), purpose=purpose,
    )  # fmt: skip


def chats(count, max_tokens=4):
    return [Chat([{"role": "user", "content": f"What is {i} + 4?"}], i, max_tokens) for i in range(count)]


def states(folder) -> dict[str, set]:
    """What a ledger says of each attempt: asked, then failed or text, or nothing more if it was killed."""
    found: dict[str, set] = {}
    for key, entry in Ledger(folder, "1_0").entries():
        found.setdefault(entry.get("attempt", key), set()).update({"asked", "failed", "text"} & set(entry))
    return found


def test_a_thousand_requests_through_faults(server, model, tmp_path):
    proxy, started = FaultyProxy(server, share=0.3), time.monotonic()
    running = engine(tmp_path, settings(proxy.url, model, concurrency=32))
    replies = running.generate(chats(1000))
    seconds = time.monotonic() - started
    assert len(replies) == 1000 and seconds < 300
    assert min(proxy.faults[kind] for kind in ("429", "500", "502", "timeout", "reset", "sent twice")) > 0
    assert [r.text for r in replies] == [proxy.sent[chat.messages[0]["content"]] for chat in chats(1000)]
    assert {r.rejected for r in replies} >= {None, "cut off at max_tokens"}
    assert all(r.rejected or r.text.strip() for r in replies)
    answered = [(key, entry) for key, entry in Ledger(tmp_path, "1_0").entries() if "text" in entry]
    assert len(answered) == len({key for key, _ in answered}) == len({e["attempt"] for _, e in answered}) == 1000
    print(f"{seconds:.1f} s, {dict(proxy.faults)}, spent {running.account.spent:.6f}")


@pytest.mark.parametrize(
    "kind, reason",
    [
        ("refusal", "refused: I cannot help with that."),
        ("content_filter", "ended by content_filter"),
        ("400 content_filter", "ended by content_filter"),
        ("empty", "empty"),
    ],
)
def test_what_cannot_be_used_is_rejected_with_its_reason(server, model, tmp_path, kind, reason):
    proxy = FaultyProxy(server, share=1.0, kinds=(kind,))
    assert [reply.rejected for reply in engine(tmp_path, settings(proxy.url, model)).generate(chats(2))] == [reason] * 2
    assert sum(proxy.asked.values()) == 2  # an answer all the same: it is not asked for again


def test_what_follows_a_stop_string_is_cut(server, model, tmp_path):
    proxy = FaultyProxy(server)
    engine(tmp_path / "a", settings(proxy.url, model)).generate(chats(40, max_tokens=40))
    whole = next(text for text in proxy.sent.values() if len(text) > 2)
    stopping = engine(tmp_path / "b", settings(proxy.url, model), stop=(whole[1],))
    replies = dict(
        zip((chat.messages[0]["content"] for chat in chats(40)), stopping.generate(chats(40, max_tokens=40)))
    )
    cut = next(replies[prompt] for prompt, text in proxy.sent.items() if text == whole)
    assert cut.text == whole[: whole.index(whole[1]) + 1]
    assert (cut.finish, cut.rejected) == ("stop", None)


def test_usage_that_is_not_told_counts_at_its_bound(server, model, tmp_path):
    silent = engine(tmp_path / "a", settings(FaultyProxy(server, 1.0, ("no usage",)).url, model))
    told = engine(tmp_path / "b", settings(FaultyProxy(server).url, model))
    for running in (silent, told):
        running.generate(chats(3))
    assert 0 < told.account.spent < silent.account.spent == sum(map(silent._bound, chats(3)))


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
    assert f"{done} of 60 requests are answered" in str(stopped.value) and 10 < done < 60
    resumed = engine(tmp_path / "paid", settings(proxy.url, model, budget=whole * 2), purpose="teaching")
    assert resumed.account.spent <= whole / 2
    assert len(resumed.generate(chats(60))) == 60
    assert sum(proxy.asked.values()) == 60 and resumed.account.spent == pytest.approx(whole)


def test_kill_9_repeats_no_answered_request(server, model, tmp_path):
    proxy = FaultyProxy(server, share=0.2, kinds=("500", "reset", "no choices"))
    code = (
        "from test_openai import *\n"
        f"engine({str(tmp_path)!r}, settings({proxy.url!r}, {model!r}, concurrency=8)).generate(chats(300))"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code], cwd=REPOSITORY / "tests", stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": f"{REPOSITORY}:{REPOSITORY}/tests"},
    )  # fmt: skip
    while len(proxy.sent) < 120:
        assert child.poll() is None
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    resumed = engine(tmp_path, settings(proxy.url, model))
    known, before = set(resumed.answers), dict(proxy.asked)
    assert 80 < len(known) < 300
    assert any(state == {"asked"} for state in states(tmp_path).values())  # what was in flight is charged at its bound
    assert len(resumed.generate(chats(300))) == 300
    assert sum({"asked", "text"} == state for state in states(tmp_path).values()) == 300
    for chat in chats(300):
        if resumed._digest(chat) in known:
            prompt = chat.messages[0]["content"]
            assert proxy.asked[prompt] == before[prompt], f"{prompt} was answered and asked again"


def test_a_second_process_waits_for_the_first(model, tmp_path):
    first = engine(tmp_path, settings("http://127.0.0.1:9/v1", model))
    code = f"from test_openai import *; engine({str(tmp_path)!r}, settings('http://127.0.0.1:9/v1', {model!r}))"
    environment = os.environ | {"PYTHONPATH": f"{REPOSITORY}:{REPOSITORY}/tests"}
    second = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, env=environment)
    assert "waiting: another process" in second.stderr.readline()
    first.close()
    assert second.wait(timeout=60) == 0


def test_errors_that_no_retry_mends_are_told_at_once(server, model, tmp_path, monkeypatch):
    url = FaultyProxy(server).url
    with pytest.raises(BadInput, match=r"the endpoint refuses: .*\n0 of 3 requests are answered"):
        engine(tmp_path, settings(url + "/nowhere", model)).generate(chats(3))
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(BadInput, match="NO_SUCH_KEY is not set"):
        engine(tmp_path, settings(url, model, key_env="NO_SUCH_KEY"))


def test_limits_hold(server, model, tmp_path):
    started = time.monotonic()
    proxy = FaultyProxy(server)
    engine(tmp_path / "a", settings(proxy.url, model, requests_per_minute=600)).generate(chats(21))
    assert time.monotonic() - started >= 2.0  # 20 gaps of a tenth of a second
    started = time.monotonic()
    engine(tmp_path / "b", settings(proxy.url, model, tokens_per_minute=6000)).generate(chats(11))
    assert time.monotonic() - started >= 10 * (4 + 15) / 100


def test_retry_after_is_seconds_or_a_date():
    assert _seconds("2.5") == 2.5 and _seconds(None) == _seconds("soon") == 0
    assert 28 < _seconds(time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 30))) <= 30


def test_an_empty_purse_at_the_provider_is_not_retried():
    response = openai.DefaultHttpxClient().build_request("POST", "http://x")
    for code, transient in (("rate_limit_exceeded", True), ("insufficient_quota", False)):
        error = openai.RateLimitError("no", response=httpx2.Response(429, request=response), body={"code": code})
        assert is_transient(error) == transient


def test_a_teacher_answers_in_the_policys_place(server, model, fork, monkeypatch):
    proxy, target = FaultyProxy(server), "runs/arithmetic/results/r1/auto/2_0.pkl"
    endpoint = {"base_url": proxy.url, "model": model, "key_env": "TEST_KEY", "prices": PRICES, "budget": 0.001}
    config = tiny_config()
    config["generate"] |= {"openai": endpoint, "auto": config["generate"]["auto"] | {"engine": "openai"}}
    fork.configure(config)
    assert "TEST_KEY is not set" in fork.snakemake(target, fails=True)
    monkeypatch.setenv("TEST_KEY", "a-secret-that-is-nowhere")
    assert "the budget is reached" in fork.snakemake(target, fails=True)
    endpoint["budget"] = 1.0
    fork.configure(config)
    output = fork.snakemake(target)
    assert "requests are answered already" in output
    rows = read_pickle(fork.folder / target)
    rejects = list(read_records(fork.folder / target.replace(".pkl", ".rejects.jsonl")))
    manifest = read_json(fork.folder / target.replace(".pkl", ".json"))
    assert len(rows) + len(rejects) == 4 * manifest["prompts"] and rows
    assert all(row["policy"] == "foreign" and row["sampled_logps"] == [] and row["tokens"] for row in rows)
    assert sum(manifest["rejects"].values()) == len(rejects) and manifest["policy"] == "foreign"
    endpoint["budget"] = 2.0
    fork.configure(config)
    assert "Nothing to be done" in fork.snakemake("-n", target)
    texts = [path.read_bytes() for path in fork.folder.rglob("*") if path.is_file() and path.suffix != ".pkl"]
    assert not any(b"a-secret-that-is-nowhere" in text for text in texts)
