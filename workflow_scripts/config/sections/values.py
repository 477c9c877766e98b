"""The values of a section that are passed on to a stage."""

from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from workflow_scripts.config.sections.endpoints import IDENTIFIES_ENDPOINT, Endpoint


def settings_of(section: BaseModel, *left_out: str, include: set[str] | None = None) -> dict[str, Any]:
    """Return the values of a section as JSON, without the keys that have their neutral value.

    The neutral value of a key is its first default: results made before the key existed count as made with it. Limits,
    prices and budgets of endpoints are left out too, since no result depends on them.
    """
    values = {}

    for name, field in type(section).model_fields.items():
        if name in left_out or (include is not None and name not in include):
            continue

        value = getattr(section, name)
        if value != neutral_value(field) or field.is_required():
            values[name] = _as_json(value)

    return values


def neutral_value(field: FieldInfo) -> Any:
    """Return the value that a key has if it is not passed on; PydanticUndefined if it is always passed on."""
    if isinstance(field.json_schema_extra, dict) and "neutral" in field.json_schema_extra:
        return field.json_schema_extra["neutral"]
    return field.get_default(call_default_factory=True)


def _as_json(value: Any) -> Any:
    if isinstance(value, Endpoint):
        return {name: getattr(value, name) for name in IDENTIFIES_ENDPOINT}
    if isinstance(value, BaseModel):
        return settings_of(value)
    if isinstance(value, dict):
        return {key: _as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(item) for item in value]
    return value


def endpoints_of(value: Any) -> dict[str, Any]:
    """Return how the endpoints within a section are called, nested as the section is: limits, prices, budgets, keys."""
    if isinstance(value, Endpoint):
        return value.model_dump(mode="json", exclude=set(IDENTIFIES_ENDPOINT))
    if not isinstance(value, BaseModel):
        return {}

    nested = {name: endpoints_of(getattr(value, name)) for name in type(value).model_fields}
    return {name: inner for name, inner in nested.items() if inner}
