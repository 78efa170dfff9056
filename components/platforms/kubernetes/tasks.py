"""Jobs that run to their end: tasks of a release, and the smoke test."""

from collections.abc import Mapping, Sequence

from pulumi import Output, Resource

from ...model.workload import Route, Task, Workload
from ..base import Dependencies, SlotTarget
from ..gateway import smoke_checks
from ..process import toolbox_process
from . import manifests, objects, pod_spec
from .objects import Manifest
from .pod_spec import REACH_WITHIN
from .registrar import created_output
from .secrets import SecretOperations

TOOLBOX_USER = 10_001


class TaskOperations(SecretOperations):
    """Operations that run a Job to its end."""

    def _job(
        self, name: str, labels: Mapping[str, str], needs: Mapping[str, str], spec: Manifest, within: float
    ) -> Manifest:
        """Return a Job. After a failed attempt the label with the attempt number changes, so the Job runs again."""
        attempt_labels = dict(labels) | self.checkpoint.attempt_label(name)
        return manifests.job(
            self.scope, name, attempt_labels, attempt_labels | dict(needs), spec, within + REACH_WITHIN
        )

    def _run_job(
        self, parent: Resource, job: Manifest, within: float, path: str, after: Dependencies
    ) -> Output[Resource]:
        """Run a Job. The returned output resolves once the Job has succeeded."""
        depends_on = [*after, *self.foundation.resources]
        return created_output(
            self._register_and_wait(parent, job, depends_on, within + self.cluster.schedule_within, path)
        )

    def run_task(
        self,
        parent: Resource,
        workload: Workload,
        task: Task,
        target: SlotTarget,
        provisioned: Mapping[str, Resource],
        after: Dependencies,
    ) -> Output[Resource]:
        name = f"{target.slot}-{workload.tier}-{task.name}"
        labels = self.scope.labels(f"{workload.tier}-{task.name}", "task", target, workload.tier)
        spec = self._task_pod(workload, target, task)
        needs = objects.need_labels(self.scope, workload, target)
        job = self._job(name, labels, needs, spec, task.timeout)
        return self._run_job(parent, job, task.timeout, task.path, [*provisioned.values(), *after])

    def _task_pod(self, workload: Workload, target: SlotTarget, task: Task) -> Manifest:
        """Return the pod spec of a command that runs to its end. The command starts once it can connect to the data services that it needs."""
        spec = self._pod(workload, target, task)
        environment = dict(workload.env) | dict(task.env)
        needed = (record.prefix for record in self.app.catalogue.data if record.name in workload.needs)
        addresses = [f"{environment[f'{prefix}_HOST']}:{environment[f'{prefix}_PORT']}" for prefix in needed]
        if not addresses:
            return spec
        reach = pod_spec.reach_container(self.environment.toolbox, pod_spec.user(workload), addresses)
        return pod_spec.with_init_container(spec, reach)

    def run_smoke_test(
        self, parent: Resource, routes: Sequence[Route], target: SlotTarget, after: Dependencies
    ) -> Output[Resource]:
        gateway = self.cluster.gateway
        within = round(gateway.within)
        arguments = [gateway.inside, self.cluster.host, str(target.slot), str(within), smoke_checks(self.app, routes)]
        process = toolbox_process(TOOLBOX_USER, "smoke", *arguments)
        container = pod_spec.tool_container("smoke", self.environment.toolbox, process)
        spec = pod_spec.pod(self.scope, container, process, pod_spec.scratch_names(process.writable))
        labels = self.scope.labels("smoke", "smoke", target)
        job = self._job(f"{target.slot}-smoke", labels, {}, spec, within + 30)
        return self._run_job(parent, job, within + 30, f"smoke test of {target.slot}", after)
