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

# Make the repository importable, because the language host runs this folder as a script.
sys.path.insert(0, str(Path(__file__).parents[1]))

from policy.model import Resource, Rule
from policy.rules import RULES
from policy.settings import SETTINGS


def to_resource(args: ResourceValidationArgs | PolicyResource) -> Resource:
    """Convert a resource of Pulumi's policy SDK to a `Resource`. The URN (`urn:pulumi:STACK::project::…`) contains the stack's name."""
    return Resource(
        type=args.resource_type,
        name=args.name,
        stack=args.urn.split("::")[0].rpartition(":")[2],
        props=args.props,
        protect=args.opts.protect,
        kept=list(args.opts.ignore_changes) == ["*"],
        urn=args.urn,
    )


def report_problems(rule: Rule, resources: Sequence[Resource], report: ReportViolation) -> None:
    """Report the problems that a rule finds.

    Stop at the first value that a preview does not know yet. The update runs the rule again, with all values.
    """
    with suppress(UnknownValueError):
        for resource, problem in rule.problems(resources, SETTINGS):
            report(problem, resource.urn)


def policy(rule: Rule) -> Policy:
    """Convert a rule to a policy of Pulumi's policy SDK."""

    def validate_resource(args: ResourceValidationArgs, report: ReportViolation) -> None:
        report_problems(rule, [to_resource(args)], report)

    def validate_stack(args: StackValidationArgs, report: ReportViolation) -> None:
        report_problems(rule, [to_resource(resource) for resource in args.resources], report)

    if rule.whole:
        return StackValidationPolicy(name=rule.name, description=rule.demand, validate=validate_stack)
    return ResourceValidationPolicy(name=rule.name, description=rule.demand, validate=validate_resource)


if __name__ == "__main__":
    # Write without a buffer, because the SDK prints its port without a flush, and Pulumi would wait for the port forever.
    sys.stdout = io.TextIOWrapper(io.FileIO(sys.stdout.fileno(), "w", closefd=False), write_through=True)
    PolicyPack("tiers", [policy(rule) for rule in RULES], enforcement_level=EnforcementLevel.MANDATORY)
