"""How an engine and an environment take turns, whoever they are, from a prompt to the end of an answer.

The environment is a sandbox, which answers stop strings within an answer (`task.reply`), or another speaker, who
answers each turn that ends (a task with `environment`, whose `replies` and `fault` are asked).
"""

from workflow_scripts import engines
from workflow_scripts.core.chat import continuation
from workflow_scripts.core.records import digest
from workflow_scripts.core.tokens import encode_pieces


def converse(jobs: list[dict], engine, task, run, sampling: dict, seed: str, template: str) -> list[dict]:
    """Play a batch of conversations to their ends: tokens, mask (1 = sampled), finish reason, sampled log-probs; with
    another speaker, also the turns since the prompt and why a conversation cannot be used (`rejected`)."""
    states = [{"tokens": [], "mask": [], "logps": [], "finish": "turns"} for _ in jobs]
    active = list(range(len(jobs)))
    for turn in range(sampling["turns"]):
        wanted = []
        for i in active:
            context = jobs[i]["prompt_tokens"] + states[i]["tokens"]
            own = int(digest([seed, jobs[i]["uid"], turn]), 16)
            wanted.append(engines.Request(context, own, sampling["max_tokens"] - sum(states[i]["mask"])))
        spoken = []
        for i, answer in zip(active, engine.generate(wanted)):
            state = states[i]
            state["tokens"] += answer.tokens
            state["mask"] += [1] * len(answer.tokens)
            state["logps"] += answer.logps
            state["finish"] = answer.finish
            if talks(task):
                text = engine.tokenizer.decode(answer.tokens, skip_special_tokens=True)
                state.setdefault("turns", []).append({"role": "assistant", "content": text})
            if answer.finish == ends_turn(task) and sum(state["mask"]) < sampling["max_tokens"]:
                spoken.append(i)
        last = turn + 1 == sampling["turns"]
        texts = [engine.tokenizer.decode(states[i]["tokens"]) for i in spoken]
        active = []
        for i, said in answers_to(task, run, [(jobs[i], states[i]) for i in spoken], texts, last):
            text = continuation(engine.tokenizer, template, said) if talks(task) else said
            ids = engine.tokenizer.encode(text, add_special_tokens=False)
            states[spoken[i]]["tokens"] += ids
            states[spoken[i]]["mask"] += [0] * len(ids)
            states[spoken[i]]["finish"] = "turns"
            active.append(spoken[i])
        if not active:
            break
    return states


def converse_in_text(jobs: list[dict], engine, task, run, sampling: dict, seed: str) -> list[dict]:
    """The same with an engine that speaks text: {text, finish, rejected (the reason, or None)}."""
    states = [{"text": "", "finish": "turns", "rejected": None} for _ in jobs]
    chats, left = [list(job["messages"]) for job in jobs], [sampling["max_tokens"]] * len(jobs)
    active = list(range(len(jobs)))
    for turn in range(sampling["turns"]):
        own = {i: int(digest([seed, jobs[i]["uid"], turn]), 16) % 2**31 for i in active}  # what servers take
        replies = engine.generate([engines.Chat(list(chats[i]), own[i], left[i]) for i in active])
        spoken = []
        for i, reply in zip(active, replies):
            state = states[i]
            state["text"] += reply.text
            state |= {"finish": reply.finish, "rejected": reply.rejected}
            chats[i].append({"role": "assistant", "content": reply.text})
            if talks(task):
                state.setdefault("turns", []).append(chats[i][-1])
            left[i] -= reply.tokens
            if not reply.rejected and reply.finish == ends_turn(task) and left[i] > 0:
                spoken.append(i)
        last = turn + 1 == sampling["turns"]
        texts, active = [states[i]["text"] for i in spoken], []
        for i, said in answers_to(task, run, [(jobs[i], states[i]) for i in spoken], texts, last):
            states[spoken[i]]["text"] += said
            states[spoken[i]]["finish"] = "turns"
            chats[spoken[i]].append({"role": "user", "content": said})
            active.append(spoken[i])
        if not active:
            break
    return states


def talks(task) -> bool:
    """Whether another speaker answers each of the policy's turns, and not an environment its stop strings."""
    return hasattr(task, "environment")


def ends_turn(task) -> str:
    """How a turn ends that is answered."""
    return "eos" if talks(task) else "stop"


def answers_to(task, run, spoken: list[tuple[dict, dict]], texts: list[str], last: bool) -> list[tuple[int, str]]:
    """(position in `spoken`, what the environment says) where a conversation goes on. Another speaker has no last word,
    and what it says is a turn of its own; `run` is the sandbox, or that speaker's environment."""
    if not talks(task):
        said = [task.reply(text, run) for text in texts]
        return [(i, text) for i, text in enumerate(said) if text is not None]
    going_on = []
    said = (
        run.replies([job["record"] for job, _ in spoken], [state["turns"] for _, state in spoken]) if not last else []
    )
    for i, (text, rejected) in enumerate(said):
        state = spoken[i][1]
        if rejected:
            state["rejected"] = rejected
        elif text is not None:
            state["turns"].append({"role": "user", "content": text})
            going_on.append((i, text))
    return going_on


def well_formed(jobs: list[dict], engine, task, run, sampling: dict, seed: str, template: str) -> list[dict]:
    """converse(), where a rollout whose form is wrong is drawn again, a bounded number of times and each time from a
    seed of its own. `drawn` says how often; the last one is kept, with its `fault`."""
    states = converse(jobs, engine, task, run, sampling, seed, template)
    if not talks(task):
        return states
    for attempt in range(1, run.resamples + 1):
        again = [i for i, state in enumerate(states) if not state.get("rejected") and run.fault(state["turns"])]
        if not again:
            break
        drawn = converse([jobs[i] for i in again], engine, task, run, sampling, f"{seed}.again{attempt}", template)
        for i, state in zip(again, drawn):
            states[i] = state | {"drawn": 1 + attempt}
    return [state | {"fault": run.fault(state["turns"])} for state in states]


def foreign(state: dict, task, tokenizer, template: str) -> dict:
    """A conversation in text as one in tokens: nobody knows the policy's log-probs of it."""
    pieces, ended = task.segments(state["text"]), state["finish"] == "eos"
    if talks(task):
        pieces = []
        for turn in state["turns"]:
            if turn["role"] == "assistant":
                pieces += [(turn["content"], True), (tokenizer.eos_token, True)]
            else:
                pieces.append((continuation(tokenizer, template, turn["content"]), False))
        pieces, ended = pieces[:-1], True  # the last turn is the policy's; EOS is added as a token
    tokens, mask = encode_pieces(tokenizer, pieces, end=ended)
    kept = {name: state[name] for name in ("turns",) if name in state}
    return {"tokens": tokens, "mask": mask, "logps": [], "finish": state["finish"]} | kept
