"""Pulumi program with many workers, which measures its own processor time and memory.

Environment variables: SERVICES is the number of workers, MEASURED is the file for the measurement.

An application can have only one worker, so the program uses the components of a slot directly.
"""

import atexit
import json
import os
import resource
from dataclasses import replace
from pathlib import Path

import pulumi

from components import platforms
from components.context import Context
from components.model.workload import Image, Probe, Resources, Secret, Workload
from components.release.checkpoint import Checkpoint
from components.release.planner import Release, Slot
from components.service import SlotService, SlotServiceArgs

APP = {"name": "many", "version": "1.0.0", "api": {"image": "python:3.11-slim-bookworm", "port": 8000}}
ENVIRONMENT = {
    "platform": "kubernetes",
    "kubernetes": {
        "context": "lab",
        "url": "http://many.localhost:8000",
        "gateway": {"name": "public", "namespace": "gateway", "inside": "http://traefik.gateway:8000"},
    },
}
REGISTERED: list[str] = []


def workload(number: int) -> Workload:
    return Workload(
        tier=f"worker-{number}",
        image=Image(reference="python:3.11-slim-bookworm"),
        resources=Resources(cpu=0.1, memory=64 * 2**20),
        env=(("ONE", "1"), ("TWO", "2")),
        secrets=(Secret(name="password", version="0123456789abcdef"),),
        port=8000,
        probe=Probe(path="/health", port=8000),
        writable=("/tmp",),
    )


def count(args: pulumi.ResourceTransformArgs) -> None:  # Returning None leaves the resource unchanged.
    REGISTERED.append(args.name)


def report() -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    measured = {
        "resources": len(REGISTERED),
        "seconds": used.ru_utime + used.ru_stime,
        "megabytes": used.ru_maxrss / 1024,
    }
    Path(os.environ["MEASURED"]).write_text(json.dumps(measured))


atexit.register(report)
pulumi.runtime.register_resource_transform(count)
SEALED = pulumi.Output.secret({"password": "never deployed"})
CONTEXT = replace(Context.from_values(app=APP, environment=ENVIRONMENT, checkpoint=Checkpoint()), sealed=SEALED)
PLATFORM = platforms.connect(CONTEXT, None)
TARGET = platforms.SlotTarget(slot=Slot.BLUE, release=Release(version="1.0.0", digest="0" * 12))
for index in range(int(os.environ["SERVICES"])):
    described = workload(index)
    parent = pulumi.ComponentResource("tiers:slot:Slot", f"blue-{index}")
    provisioned = PLATFORM.provision(parent, [described], TARGET)
    args = SlotServiceArgs(platform=PLATFORM, workload=described, target=TARGET, provisioned=provisioned)
    SlotService(f"blue-{described.tier}", args, pulumi.ResourceOptions(parent=parent))
