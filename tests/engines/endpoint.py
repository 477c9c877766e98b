"""A client of an endpoint, for tests and for the processes that they start."""

from typing import Any

from workflow_scripts.config.sections import Endpoint
from workflow_scripts.core.running.ledger import Ledger
from workflow_scripts.engines import Chat, load

PRICES = {"input": 2.0, "cached": 0.5, "output": 8.0}


def settings(url: str, model: str, **changes: Any) -> dict[str, Any]:
    """Return the config section of an endpoint."""
    values = {"base_url": url, "model": model, "key_env": None, "prices": PRICES, "timeout": 2.0}
    return Endpoint(**values | changes).model_dump()


def engine(folder: Any, settings: dict[str, Any], stop: tuple[str, ...] = (), purpose: str = "test") -> Any:
    """Return the openai engine with its ledger in `folder`."""
    return load(
        "openai",
        settings=settings,
        sampling={"temperature": 0, "top_p": 1.0},
        stop=stop,
        ledger=Ledger(folder, "1_0"),
        purpose=purpose,
    )


def chats(count: int, max_tokens: int = 4) -> list[Chat]:
    """Return as many different conversations."""
    return [Chat([{"role": "user", "content": f"What is {i} + 4?"}], i, max_tokens) for i in range(count)]


def question(chat: Chat) -> str:
    """Return what a conversation asks, by which the proxy counts requests."""
    return chat.messages[0]["content"]
