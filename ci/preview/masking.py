"""Masking of secrets in a preview: values that Pulumi marks as secret, secret inputs, and logins in URLs."""

import re
from collections.abc import Collection, Mapping
from typing import Any, cast

SIGNATURE = "4dabf18193072939515e22adb298388d"
"""Key in Pulumi's JSON that marks a special value, such as a secret."""
SECRET = "[secret]"  # noqa: S105
"""Text in place of a secret."""

_SECRET_INPUTS = {"kubernetes:core/v1:Secret": ("data", "stringData"), "docker:index/container:Container": ("uploads",)}
"""Names of the inputs that are always secret, by type of resource."""
_SECRET_VARIABLE = re.compile(
    r"envs?\[\w*(PASSWORD|PASSWD|SECRET|TOKEN|CREDENTIAL|API_?KEY|PRIVATE_?KEY)\w*(?<!_FILE)\]"
)
_LOGIN = re.compile(r"(://)[^/\s:@]+:[^/\s@]+@")


def masked_inputs(state: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the inputs of a resource, with masked secrets."""
    secret_keys = {*(state.get("additionalSecretOutputs") or ()), *_SECRET_INPUTS.get(state["type"], ())}
    return mask(state.get("inputs") or {}, secret_keys)


def mask(value: Any, secret_keys: Collection[str] = ()) -> Any:
    """Mask secrets in a value: values that Pulumi marks as secret, values of `secret_keys`, and logins in URLs."""
    if isinstance(value, Mapping):
        pairs = cast(Mapping[str, Any], value)
        if SIGNATURE in pairs:
            return SECRET
        return {key: SECRET if key in secret_keys else mask(item) for key, item in pairs.items()}
    if isinstance(value, list):
        return [mask(item) for item in cast(list[Any], value)]
    return mask_logins(value) if isinstance(value, str) else value


def mask_logins(text: str) -> str:
    """Mask user names and passwords in the URLs of a text."""
    return _LOGIN.sub(rf"\1{SECRET}@", text)


def mask_variable(path: str, text: str) -> str:
    """Return the text of an input, or `SECRET` if `path` is an environment variable with a name such as DB_PASSWORD."""
    return SECRET if _SECRET_VARIABLE.search(path) else text
