"""Scheduled jobs on an engine: a container for each job in each slot starts the job at its due times while its slot is live.

The container has the image and the settings of the job's service. A shell of BusyBox (`programs`) waits for due times. It needs neither
the engine's socket nor a shell in the image. The volume `job-state` has a file with the live slot, and a folder for each job.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pulumi_docker as docker
from pulumi import Resource

from ...model import names
from ...model.workload import Job, Workload
from ...state.docker import CONTAINER
from ..base import Dependencies, LiveObject, SlotTarget
from ..process import Process
from . import programs
from .containers import hardened_args, healthcheck, inputs_of, prevent_start
from .errors import explain_container
from .haproxy import USER
from .job_runner import ENDS_WITHIN, FOLDER, LIVE_FILE, LIVE_OBJECT, runner
from .registrar import PROGRAMS, Registrar, image_id, mounted_files


class JobOperations(Registrar):
    """Operations that deploy scheduled jobs."""

    def prepare_jobs(
        self,
        parent: Resource,
        workloads: Sequence[Workload],
        target: SlotTarget,
        provisioned: Mapping[str, Resource],
        after: Dependencies,
    ) -> tuple[Mapping[str, LiveObject], Sequence[Resource]]:
        jobs = [(workload, job) for workload in workloads for job in workload.jobs]
        if not jobs:
            return {}, []
        needed = [*after, self._job_state(parent, target, provisioned)]
        return {}, [self._job(parent, workload, job, target, provisioned, needed) for workload, job in jobs]

    def live_objects(self, target: SlotTarget) -> Mapping[str, LiveObject]:
        """Return the container that writes the name of the live slot into the volume when it is created. It never starts."""
        if names.JOB_STATE not in self.foundation.volumes:
            return {}
        labels = self._labels(names.JOB_STATE, LIVE_OBJECT, target)
        args = self._toolbox_args(LIVE_OBJECT, labels)
        prevent_start(args, uploads=True)
        args.volumes = [self._state_volume(FOLDER)]
        args.uploads = [docker.ContainerUploadArgs(file=LIVE_FILE, content=str(target.slot))]
        inputs = inputs_of(args)
        return {LIVE_OBJECT: LiveObject(path="app.jobs", type=CONTAINER, name=LIVE_OBJECT, inputs=inputs, within=60)}

    def _job_state(self, parent: Resource, target: SlotTarget, provisioned: Mapping[str, Resource]) -> Resource:
        """Prepare the volume for the state of jobs: every user may create files in it, but change only their own.

        The engine copies the owner and the mode of the folder /tmp of the image into an empty volume that a new container mounts there.
        """
        # No job's container has this name, because their names go on after `job-`.
        name, labels = f"{target.slot}-jobs", self.labels(role=names.JOB_STATE)
        process = Process(command=("true",), user=USER, writable=())
        args = hardened_args(f"{self.prefix}-{name}", _busybox_image(provisioned), labels, process)
        prevent_start(args)
        args.volumes = [self._state_volume("/tmp")]
        return docker.Container(name, args, opts=self._options(parent, delete_before_replace=True))

    def _state_volume(self, path: str) -> docker.ContainerVolumeArgs:
        name = self.foundation.volumes[names.JOB_STATE].name
        return docker.ContainerVolumeArgs(container_path=path, volume_name=name)

    def _job(
        self,
        parent: Resource,
        workload: Workload,
        job: Job,
        target: SlotTarget,
        provisioned: Mapping[str, Resource],
        after: Dependencies,
    ) -> Resource:
        name = f"{target.slot}-{names.JOB}-{job.name}"
        labels = self._labels(names.ROLE_JOB, name, target, tier=workload.tier)
        labels |= {names.LABEL_JOB: job.name, names.LABEL_SCHEDULE: f"{job.cron} {job.schedule.zone}"}
        args = hardened_args(
            f"{self.prefix}-{name}", image_id(provisioned, workload), labels, Process.from_workload(workload)
        )
        variables = programs.export(programs.env_folders()) if workload.secret_env else []
        self._start(args, workload, job.command, [*variables, *runner(job, target, workload.user)])
        args.envs = self._environment(workload, target, job)
        args.networks_advanced = self._networks(workload.zones)
        args.volumes = [
            *self.tier_volumes(workload),
            *mounted_files(provisioned, workload),
            self._state_volume(FOLDER),
        ]
        args.healthcheck = healthcheck(workload, ["CMD", programs.BUSYBOX, "true"])
        args.wait, args.wait_timeout, args.init = True, round(workload.start_within), True
        finish = min(job.timeout * (1 + job.retries) + 20 * job.retries + 20, ENDS_WITHIN)
        args.stop_timeout = args.destroy_grace_seconds = round(finish)
        hooks = explain_container(
            name, f"{self.prefix}-{name}", job.path, workload.start_within, self.inspector.location, impact=self.impact
        )
        opts = self._options(parent, after, hooks=hooks, delete_before_replace=True)
        return docker.Container(name, args, opts=opts)


def _busybox_image(provisioned: Mapping[str, Resource]) -> Any:
    """Return the id of BusyBox's image."""
    holder = provisioned[PROGRAMS]
    assert isinstance(holder, docker.Container)
    return holder.image
