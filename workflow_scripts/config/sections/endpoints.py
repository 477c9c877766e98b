"""Endpoints of language models."""

import re
from typing import Annotated

from pydantic import AfterValidator, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from workflow_scripts.config.sections.base import Section, Url, without_value


def _check_variable(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_]\w{0,39}", name):  # probably the key itself, which must not be shown
        raise without_value("should be the name of an environment variable that holds the key, such as OPENAI_API_KEY")
    return name


Variable = Annotated[str, AfterValidator(_check_variable)]


class Prices(Section):
    """Prices of a million tokens, in any currency."""

    input: NonNegativeFloat  # of sent tokens
    cached: NonNegativeFloat  # of sent tokens that the endpoint had cached
    output: NonNegativeFloat  # of sampled tokens


class Endpoint(Section):
    """An OpenAI-compatible endpoint. Results depend on `base_url` and `model` only, so only they rerun anything."""

    base_url: Url  # such as https://api.openai.com/v1
    model: str  # as the endpoint names it
    key_env: Variable | None = "OPENAI_API_KEY"  # the environment variable that holds the key; null: no key is needed
    concurrency: PositiveInt = 16  # requests in flight
    requests_per_minute: PositiveFloat | None = None  # of all jobs together; null: unlimited
    tokens_per_minute: PositiveFloat | None = None  # prompts are estimated, max_tokens count in full, as on servers
    timeout: PositiveFloat = 120.0  # seconds per request
    prices: Prices = Prices(input=0, cached=0, output=0)  # of a million tokens, for costs and the budget
    budget: PositiveFloat | None = None  # of the whole run, in the prices' currency; the stage stops when it is reached

    @model_validator(mode="after")
    def has_prices_for_budget(self):
        if self.budget is not None and not (self.prices.input or self.prices.output):
            raise ValueError("a budget needs `prices: {input: …, cached: …, output: …}` per million tokens")
        return self


IDENTIFIES_ENDPOINT = ("base_url", "model")
