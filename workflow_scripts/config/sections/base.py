"""What all sections have in common: their base, and the types of values that several sections take."""

import re
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.running import plugins

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=100)]  # it is part of file names
HIDDEN = "secret"  # the type of a fault whose value is not shown
Share = Annotated[float, Field(ge=0, le=1)]
Dtype = Literal["float32", "bfloat16"]


class Section(BaseModel):
    """A section of the config. Unknown keys, NaN and infinity are errors.

    A field whose default changes keeps its first default as `Field(new, json_schema_extra={"neutral": old})`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def exactly_one(**options: Any) -> None:
    """Raise ValueError unless exactly one of the options has a value."""
    present = [name for name, value in options.items() if value is not None]

    if len(present) != 1:
        state = "both are given: set one to null" if present else "neither is given"
        raise ValueError(f"give either {' or '.join(f'`{name}`' for name in options)}; {state}")


def _plugin(folder: str):
    """Return a validator of names that a folder of workflow_scripts/ offers."""

    def check(name: str) -> str:
        try:
            return plugins.check_name(folder, name)
        except BadInput as error:
            raise ValueError(str(error)) from None

    return AfterValidator(check)


def _check_reward(name: str) -> str:
    if name not in plugins.names("rewards") and not re.fullmatch(r".+\.py:\w+", name):
        raise ValueError(f"there is no such reward; choose {', '.join(plugins.names('rewards'))}, or FILE.py:FUNCTION")

    return name


def without_value(message: str) -> PydanticCustomError:
    """Return an error of a config value that is not shown, because it may be a secret."""
    return PydanticCustomError(HIDDEN, message)  # type: ignore[arg-type]


def _check_url(url: str) -> str:
    if "@" in urlsplit(url).netloc:
        raise without_value("should hold no user name or password: give a key through an environment variable")
    return url


TaskName = Annotated[Name, _plugin("tasks")]
Engine = Annotated[str, _plugin("engines")]
Objective = Annotated[str, _plugin("training/objectives")]
Reward = Annotated[str, AfterValidator(_check_reward)]
Url = Annotated[str, AfterValidator(_check_url)]
