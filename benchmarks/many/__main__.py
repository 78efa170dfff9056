"""Application with SERVICES workers on the Kubernetes platform; writes the resources that the program used.

An application's description has one worker, so this calls the platform as a slot does for each tier.
"""

import atexit
import json
import os
import resource
from pathlib import Path

import pulumi
from components import platforms
from components.checkpoint import Checkpoint
from components.config import Settings, load_app, load_environment
from components.release import Release, Slot
from components.tier import SlotTier, TierArgs
from components.workload import Image, Probe, Resources, Scale, Secret, Workload

APP = load_app({"name": "many", "version": "1.0.0", "api": {"image": "python:3.11-slim-bookworm", "port": 8000}})
ENVIRONMENT = load_environment(
    {
        "platform": "kubernetes",
        "kubernetes": {
            "context": "lab",
            "url": "http://many.localhost:8000",
            "gateway": {"name": "public", "namespace": "gateway", "inside": "http://traefik.gateway:8000"},
        },
    },
    APP,
)
MADE: list[str] = []


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


def count(args: pulumi.ResourceTransformArgs) -> None:  # returns None, which changes nothing
    MADE.append(args.name)


def report() -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    measured = {"resources": len(MADE), "seconds": used.ru_utime + used.ru_stime, "megabytes": used.ru_maxrss / 1024}
    Path(os.environ["MEASURED"]).write_text(json.dumps(measured))


atexit.register(report)
pulumi.runtime.register_resource_transform(count)
SEALED = pulumi.Output.secret({"password": "never deployed"})
SETTINGS = Settings(app=APP, environment=ENVIRONMENT, secrets={}, sealed=SEALED)
PLATFORM = platforms.connect(SETTINGS, Checkpoint(), None)
PLACE = platforms.Place(slot=Slot.BLUE, release=Release(version="1.0.0", digest="0" * 12))
assert PLATFORM.foundation
for index in range(int(os.environ["SERVICES"])):
    described = workload(index)
    parent = pulumi.ComponentResource("tiers:slot:Slot", f"blue-{index}")
    supplies = PLATFORM.prepare(parent, [described], PLACE)
    args = TierArgs(workload=described, scale=Scale(), place=PLACE, supplies=supplies, after=())
    SlotTier("tiers:worker:Worker", f"blue-{described.tier}", PLATFORM, args, pulumi.ResourceOptions(parent=parent))
