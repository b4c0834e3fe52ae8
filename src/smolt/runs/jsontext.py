"""JSON that says the same when it is read back: floats by their exact repr, no NaN, no key that changes its type."""

import json
import math
from numbers import Integral, Real
from typing import Any

from smolt.errors import SelfCheckError


def encode(value: Any, what: str, indent: int | None = None) -> str:
    """The JSON text of `value`, on one line unless `indent` is given.

    Args:
        value: None, bool, int, float, str, and lists, tuples and dicts with str keys of them.
        what: names the value in errors, for example "metrics row of step 12".
        indent: spaces per level.

    Raises:
        SelfCheckError: a NaN or an infinity, named by its field; None (JSON null) is for what was not measured.
        TypeError: a value or key JSON cannot hold, named by its field.
    """
    _check(value, what, "")
    text = json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # half a surrogate pair, which JSON data can carry and UTF-8 cannot
        return json.dumps(value, indent=indent, allow_nan=False)
    return text


def encode_exact(value: Any, what: str, indent: int | None = None) -> str:
    """Like `encode`, and refuses a value that would come back different (a tuple comes back as a list)."""
    text = encode(value, what, indent)
    if json.loads(text) != value:
        raise TypeError(f"{what}: would not come back from JSON as it is; use lists, not tuples")
    return text


def decode_object(content: str | bytes, where: str) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        ValueError: not JSON, or not an object; `where` names the file.
    """
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: not JSON ({error})") from error
    if not isinstance(value, dict):
        raise ValueError(f"{where}: expected a JSON object, found {type(value).__name__}")
    return value


def plain(value: Any) -> Any:
    """The value in strict JSON: no number that is not finite, no text that is not Unicode, the rest as text."""
    if isinstance(value, dict):
        return {plain(str(name)): plain(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value) if math.isfinite(value) else None
    return str(value).encode("utf-8", "backslashreplace").decode()


def _check(value: Any, what: str, field: str) -> None:
    if value is None or isinstance(value, bool | int | str):
        return
    if isinstance(value, float):
        if not math.isfinite(value):
            raise SelfCheckError(f"{what}: {field or 'value'}: {value} is not a finite number and is never written")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _check(item, what, f"{field}[{index}]")
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"{what}: {field or 'top level'}: key {key!r} is not text, JSON would change it")
            _check(item, what, f"{field}.{key}" if field else key)
    else:
        raise TypeError(f"{what}: {field or 'value'}: {type(value).__name__} is not a JSON value")
