"""Differences between the old and new state of resources: a list of changes in place, and a folded diff of all changes."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, cast

from components.release.checkpoint import Entry

from .markdown import ITEMS, WIDTH, escape, fit, join, shorten
from .masking import mask_variable
from .read import Area, Change, Op, Preview

UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
"""Placeholder of Pulumi for a value that is known only after the update."""
NAME_KEYS = ("label", "containerPath", "mountPath", "name")
"""Keys that may identify a member of a list, the best key first. Mounts may share a name, but each mount has its own path."""


def changes_in_place(preview: Preview) -> Iterator[str]:
    """Yield a line for each resource that is updated in place. Leave out the switch, and the slot that gets the new release."""
    plan = preview.plan
    for change in preview.changes:
        in_new_slot = plan is not None and plan.render is not None and change.membership.slot == plan.render
        if change.op is Op.UPDATE and change.area is not Area.SWITCH and not in_new_slot:
            differences = [f"{escape(path)} {values}" for path, values in input_differences(change.old, change.new)]
            yield f"{change.title} changes in place: {join(differences) or 'the preview does not say what'}"


def folded_diff(preview: Preview, room: int) -> str:
    """Return all changes as a folded diff of at most `room` characters.

    Changes of shared resources come first, because the end may be cut.
    """
    changes = [change for change in preview.changes if change.op]
    changes.sort(key=lambda change: ([*Area].index(change.area), change.entry.urn))
    if not changes:
        return ""
    start, end = f"\n<details><summary>All changes: {len(changes)}</summary>\n\n```diff\n", "\n```\n\n</details>\n"
    rest = f"# {{}} more changes are not shown; pulumi preview --diff --stack {preview.stack} shows them"
    blocks = ["\n".join(_diff(change)) for change in changes]
    return start + "\n".join(fit(blocks, room - len(start + rest + end) - ITEMS, rest)) + end


def _diff(change: Change) -> Iterator[str]:
    reasons = f", because of {join(change.reasons)}" if change.op is Op.REPLACE and change.reasons else ""
    sign = {Op.CREATE: "+", Op.DELETE: "-"}.get(change.op, "!")
    yield shorten(f"{sign} {change.kind} {change.entry.name}: {change.op.word}{reasons}", 4 * WIDTH)
    if change.op is Op.CREATE:
        yield from (f"+   {path}: {shorten(value)}" for path, value in flat_inputs(change.entry))
    elif change.op is not Op.DELETE:
        yield from (f"!   {path}: {values}" for path, values in input_differences(change.old, change.new))


def input_differences(old: Entry | None, new: Entry | None) -> Iterator[tuple[str, str]]:
    """Yield the path of each input that differs between two states of a resource, and the text `old → new`."""
    before, after = (dict(flat_inputs(entry)) if entry else {} for entry in (old, new))
    for path in sorted(before.keys() | after.keys()):
        if before.get(path) != after.get(path):
            yield path, old_to_new(before.get(path, ""), after.get(path, ""))


def old_to_new(old: str, new: str) -> str:
    """Return both values in Markdown, with an arrow between them. A long equal start is cut off."""
    difference = next(
        (index for index, (before, after) in enumerate(zip(old, new, strict=False)) if before != after), 0
    )
    start = difference - 20 if difference > WIDTH // 2 else 0
    prefix = "…" if start else ""
    return " → ".join(f"`{escape(prefix + value[start:], WIDTH // 2)}`" if value else "nothing" for value in (old, new))


def flat_inputs(entry: Entry) -> Iterator[tuple[str, str]]:
    """Yield the path and the value of each input, as texts. Members of a list have a name or number, as in `env[PORT]`."""
    return _flat(entry.inputs, "")


def _flat(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, item in sorted(cast(Mapping[str, Any], value).items()):
            if key != "__defaults":
                yield from _flat(item, f"{path}.{key}" if path else key)
    elif isinstance(value, list) and value:
        for key, item in _members(cast(list[Any], value), path):
            yield from _flat(item, f"{path}[{key}]" if key else path)
    else:
        text = value if isinstance(value, str) else json.dumps(value)
        yield path, mask_variable(path, "(known after the update)" if text == UNKNOWN else text)


def _members(members: list[Any], path: str) -> Iterator[tuple[str, Any]]:
    """Yield the name and value of each member of a list. A member without a name gets its number as its name.

    If all members are plain values, yield only one pair: an empty name, and all values joined to one text.
    """
    if path.endswith("envs"):
        yield from ((name, value) for name, _, value in (str(member).partition("=") for member in members))
    elif not any(isinstance(member, Mapping | list) for member in members):
        yield "", " ".join(map(str, members))
    else:
        mappings = [cast(Mapping[str, Any], member if isinstance(member, Mapping) else {}) for member in members]
        name_key = _unique_key(mappings)
        for number, (member, mapping) in enumerate(zip(members, mappings, strict=True)):
            only_value = name_key in mapping and mapping.keys() - {name_key, "__defaults"} == {"value"}
            name = mapping.get(name_key, number) if name_key else number
            yield str(name), mapping["value"] if only_value else member


def _unique_key(members: list[Mapping[str, Any]]) -> str | None:
    """Return the first key of `NAME_KEYS` that has a different value in every member, or None."""
    for key in NAME_KEYS:
        if len({str(member[key]) for member in members if key in member}) == len(members):
            return key
    return None
