"""The rules as a policy pack: `pulumi up --policy-pack policy`, `pulumi preview --policy-pack policy`."""

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

# The language host runs this folder, not the package.
sys.path.insert(0, str(Path(__file__).parents[1]))

from policy.model import Resource, Rule
from policy.rules import RULES
from policy.settings import SETTINGS


def seen(given: ResourceValidationArgs | PolicyResource) -> Resource:
    """A resource as rules see it. Its stack is in its URN: `urn:pulumi:STACK::project::…`."""
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
    """Report what a rule finds. What a preview can't know yet is judged by the update."""
    with suppress(UnknownValueError):
        for resource, problem in rule.problems(resources, SETTINGS):
            report(problem, resource.urn)


def policy(rule: Rule) -> Policy:
    def one(args: ResourceValidationArgs, report: ReportViolation) -> None:
        judge(rule, [seen(args)], report)

    def whole(args: StackValidationArgs, report: ReportViolation) -> None:
        judge(rule, [seen(each) for each in args.resources], report)

    if rule.whole:
        return StackValidationPolicy(name=rule.name, description=rule.demand, validate=whole)
    return ResourceValidationPolicy(name=rule.name, description=rule.demand, validate=one)


if __name__ == "__main__":
    # The SDK says its port and does not flush it: whoever runs Python buffered would wait for ever.
    sys.stdout = io.TextIOWrapper(io.FileIO(sys.stdout.fileno(), "w", closefd=False), write_through=True)
    PolicyPack("tiers", [policy(rule) for rule in RULES], enforcement_level=EnforcementLevel.MANDATORY)
