"""Policy pack of the rules: `pulumi up --policy-pack policy`, `pulumi preview --policy-pack policy`."""

import io
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from pulumi_policy import (
    EnforcementLevel,
    Policy,
    PolicyPack,
    PolicyResource,
    ReportViolation,
    ResourceValidationArgs,
    ResourceValidationPolicy,
    StackValidationArgs,
    StackValidationPolicy,
)
from pulumi_policy.proxy import UnknownValueError

# The language host runs this folder as a script, so the repository must be importable.
sys.path.insert(0, str(Path(__file__).parents[1]))

from policy.model import Resource, Rule
from policy.rules import RULES
from policy.settings import SETTINGS


def seen(given: ResourceValidationArgs | PolicyResource) -> Resource:
    """Return a resource in the form of the rules. The stack is part of its URN: `urn:pulumi:STACK::project::…`."""
    return Resource(
        type=given.resource_type,
        name=given.name,
        stack=given.urn.split("::")[0].rpartition(":")[2],
        props=given.props,
        protect=given.opts.protect,
        kept=list(given.opts.ignore_changes) == ["*"],
        urn=given.urn,
    )


def judge(rule: Rule, resources: Sequence[Resource], report: ReportViolation) -> None:
    """Report the problems that a rule finds. In a preview, resources with unknown values are left to the update."""
    with suppress(UnknownValueError):
        for resource, problem in rule.problems(resources, SETTINGS):
            report(problem, resource.urn)


def policy(rule: Rule) -> Policy:
    """Return a rule as a policy of the SDK."""

    def one(args: ResourceValidationArgs, report: ReportViolation) -> None:
        judge(rule, [seen(args)], report)

    def whole(args: StackValidationArgs, report: ReportViolation) -> None:
        judge(rule, [seen(resource) for resource in args.resources], report)

    if rule.whole:
        return StackValidationPolicy(name=rule.name, description=rule.demand, validate=whole)
    return ResourceValidationPolicy(name=rule.name, description=rule.demand, validate=one)


if __name__ == "__main__":
    # The SDK prints its port without flushing it. With buffered output Pulumi would wait forever.
    sys.stdout = io.TextIOWrapper(io.FileIO(sys.stdout.fileno(), "w", closefd=False), write_through=True)
    PolicyPack("tiers", [policy(rule) for rule in RULES], enforcement_level=EnforcementLevel.MANDATORY)
