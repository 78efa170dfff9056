"""Deploy an api by blue-green releases, a cache, and a status page outside the slots."""

import pulumi
import pulumi_docker as docker
import tiers

config = pulumi.Config()
context = tiers.Context.from_values(
    app={
        "name": "visits",
        "version": config.get("version") or "1.0.0",
        "visits": ["/api/visits"],
        "api": {
            "build": "api",
            "port": 8000,
            "needs": ["cache"],
            "env": {"GREETING": config.get("greeting") or "Hello"},
        },
        "cache": {},
    },
    environment={
        "platform": "docker",
        "gateway": {"port": config.get_int("port") or 8090},
        "protect_data": False,
    },
    secrets={"cache-password": config.require("cache-password")},
)
application = tiers.Application.from_context(context)
rollout = tiers.plan_rollout(context, application)
platform = rollout.platform

cache = tiers.Cache("cache", tiers.CacheArgs(platform=platform, data=application.data["cache"]))
gateway = tiers.Gateway("gateway", tiers.GatewayArgs(platform=platform))
data = {"cache": cache.ready}
slots = tiers.deploy_slots(rollout, data, gateway.running)
after = tiers.foundation(platform, data, gateway.running)
switch = tiers.Switch("switch", tiers.SwitchArgs(rollout=rollout, gates=slots.gates, after=after))

image = docker.RemoteImage("python", name="python:3.11-slim-bookworm", keep_locally=True)
page = "cd /tmp && echo $RELEASE > index.html && exec python3 -m http.server 8000"
docker.Container(
    "status",
    name=f"visits-{context.stack}-status",
    image=image.image_id,
    command=["sh", "-c", page],
    envs=[switch.live.apply(lambda live: f"RELEASE={live['release']}")],
    ports=[docker.ContainerPortArgs(internal=8000, external=config.get_int("status-port") or 8091, ip="127.0.0.1")],
)

pulumi.export("url", gateway.url)
pulumi.export("cache", cache.url)
pulumi.export("live", switch.live)
