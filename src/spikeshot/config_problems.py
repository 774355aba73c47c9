"""What is wrong with a configuration, in a sentence: key, value, expectation, nearest key."""

from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from spikeshot.errors import nearest_hint


def first_problem(error: ValidationError, model: type[BaseModel]) -> str:
    """Return one sentence on the first problem of values for `model`, a tree of sections."""
    problem = error.errors()[0]
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        known, name = _known_keys(problem["loc"][:-1], model), str(problem["loc"][-1])
        elsewhere = _places_of(name, model)  # a right name in the wrong section
        hint = nearest_hint((elsewhere or [name])[0], elsewhere or known)
        return f"key {key!r} is unknown{hint}; expected one of {', '.join(known)}."
    if problem["type"] == "missing":
        return f"{key} is missing; expected a value."
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error":
        return f"{key}: {message}." if key else f"{message}."
    return f"{key} is {problem['input']!r}; {message[0].lower()}{message[1:]}."


def _known_keys(path: tuple[int | str, ...], model: Any) -> list[str]:
    for part in path:
        if isinstance(part, str):
            model = model.model_fields[part].annotation
        args = [a for a in get_args(model) if isinstance(a, type) and issubclass(a, BaseModel)]
        model = args[0] if args else model
    return list(model.model_fields)


def _places_of(name: str, model: type[BaseModel], at: str = "") -> list[str]:
    """Return where in the tree a key `name` stands, as `train.iterations`."""
    found = []
    for key, field in model.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            found += _places_of(name, section, f"{at}{key}.")
        elif key == name:
            found.append(at + key)
    return found
