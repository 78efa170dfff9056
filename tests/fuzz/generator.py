"""Hypothesis strategies that generate three kinds of configurations.

- `correct`: all keys and values are correct.
- `mutated`: one key or value is unexpected.
- `bounded`: some values are unusual or at a limit.
"""

import copy
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

Plain = dict[str, Any]

DIGEST = "@sha256:" + "0" * 64
WORDS = [
    "a",
    "api",
    "gateway",
    "cache-data-1",
    "database-scripts",
    "secrets",
    "scripts",
    "uploads",
    "x1",
    "a-b",
    "prometheus-released",
    "scratch-tmp",
]
PATHS = ["/tmp", "/a", "/a/b", "/a-b", "/a.b", "/A", "/a b", "/srv/@scope/x", "/ü", "/x" * 40, "/run/secrets", "/", "//", "/a/", "/a//b",
         "/a:ro", "/docker-entrypoint-initdb.d", "/proc/x", "/a/./b", "/$(X)", "/a,b", "/a=b", "/" + "a" * 255, "/" + "a" * 256, "/ü" * 1500, "/usr", "/lib/", "/var/run/secrets"]  # fmt: skip
URL_PATHS = [
    "/",
    "/api",
    "/health",
    "/a%20b",
    "/a//b",
    "/../x",
    "/a/./b",
    "/" + "x" * 1100,
    "/api/",
    "/%2e",
    "/%zz",
    "/$x",
    "/.gateway/health",
    "/a.b",
]
IMAGES = [
    "acme/x:1",
    "acme/x" + DIGEST,
    "x@sha256:0",
    "a..b/x:1",
    "Acme/x:1",
    "x:1:2",
    "x:-1",
    "registry.test:5000/x:1" + DIGEST,
    "x/:1",
    "x:é",
    "sha256:" + "0" * 64,
    "x@sha512:" + "0" * 128,
    "[::1]:5000/x:1",
    "x" * 255 + ":" + "t" * 128,
]
TEXTS = [
    "",
    "x",
    "$(X)",
    "$$",
    "a\nb",
    "ü",
    "'",
    '"',
    "{{.}}",
    "a b",
    "x" * 70,
    "x" * 300,
    "\0",
    "on",
    "-x",
    "x-",
    "1",
    "*",
]
LABELS = [
    "release",
    "tiers.app",
    "a/b/c",
    "x/",
    "/x",
    "app.kubernetes.io/name",
    "a" * 64,
    "team.example.com/owner",
    "tiers.needs/x",
]
HOSTS = [
    "shop.test",
    "*.shop.test",
    "a..b",
    "-a.test",
    "a" * 64 + ".test",
    "10.0.0.1",
    "a.b.",
    "x_y.test",
    "localhost",
    "127.0.0.1",
    "1.0",
    "999.1.1.1",
    "a.1",
    "http://localhost:9000",
    "http://x:080",
    "http://x.:80",
    "tcp://x",
    "ssh://x",
]
CIDRS = ["10.0.0.0/8", "10.0.0.1/8", "10.0.0.0/40", "::/0", "fe80::1/64", "300.0.0.0/8", "1::2::3/64"]
TIMES = [
    "30s",
    "0s",
    "500ms",
    "0.001ms",
    "999999999h",
    "1m",
    "x",
    "1500ms",
    "1000h",
    "87600h",
    "0.4d",
    "36500d",
    "2m",
    "121s",
]
SIZES = ["512Mi", "6Mi", "0.5Gi", "1Ki", "999999999Gi", "7000Ki", "x"]
SCHEDULES = [
    "daily",
    "17 3 * * *",
    "0 0 31 feb *",
    "0 0 * * sat-sun",
    "0 0 5-1 * *",
    "*/0 * * * *",
    "*/5 * * * mon-fri",
    "60 * * * *",
    "0 0 1 * mon",
    "0 0 */2 * mon",
    "0 0 29 feb *",
    "*/59 23 31 12 *",
]
ODD = st.sampled_from(
    [*PATHS, *URL_PATHS, *IMAGES, *TEXTS, *LABELS, *HOSTS, *CIDRS, *TIMES, *SIZES, *SCHEDULES, *WORDS, None, True, 0, -1, 1.5, 65536, 10**12,
     [], {}, [None], {"": ""}, ["a", "a"], {"a": None}, float("inf"), float("nan")]
)  # fmt: skip
STACKS = st.sampled_from(["dev", "t", "staging-2"])
ODD_STACKS = st.sampled_from(["Prod", "Feature_X", "a" * 63, "a.b", "x-", "1", "-x"])


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """Input of one run of the program: app, environment, secrets, and the name of the stack."""

    app: Any
    environment: Any
    secrets: dict[str, str]
    stack: str


def optional(**values: st.SearchStrategy[Any]) -> st.SearchStrategy[Plain]:
    """Return a strategy for a mapping in which every key is optional."""
    return st.fixed_dictionaries({}, optional=values)


def sublist(values: list[Any], max_size: int = 3) -> st.SearchStrategy[list[Any]]:
    return st.lists(st.sampled_from(values), max_size=max_size, unique=True)


COMMANDS = st.lists(st.sampled_from(["serve", "--flag", "$(X)", "a b", "ü", "'"]), min_size=1, max_size=3)
STEP = st.fixed_dictionaries({"command": COMMANDS}, optional={"timeout": st.sampled_from(["30s", "2m", "1h"])})
GOOD_PATHS = ["/tmp", "/cache", "/a/b", "/a-b", "/a.b", "/A", "/a b", "/srv/@scope/engine", "/x" * 40]


def service(*, needs: list[str], listening: bool) -> st.SearchStrategy[Plain]:
    """Return a strategy for the settings of web, api or worker. The settings are correct, except that two mounts may have the same path."""
    more = {
        "command": COMMANDS,
        "env": st.dictionaries(
            st.sampled_from(["A", "B_1", "LOG_LEVEL"]), st.sampled_from([text for text in TEXTS if "\0" not in text])
        ),
        "needs": sublist(needs),
        "secrets": st.one_of(sublist(["one", "two", "three-4"]), st.just([f"many-{number}" for number in range(36)])),
        "writable": sublist(GOOD_PATHS, 4),
        "scratch": st.sampled_from(["6Mi", "64Mi", "1Gi"]),
        "volumes": sublist(["a", "uploads", "x1", "a-b", "n" * 30], 2).map(
            lambda names: {name: f"/v/{name}{':ro' if name == 'x1' else ''}" for name in names}
        ),
        "user": st.sampled_from([10_001, 20_000, 2**31 - 1]),
        "egress": st.booleans(),
        "start_within": st.sampled_from(["1s", "90s", "1500ms"]),
        "stop_within": st.sampled_from(["0s", "30s"]),
        "tasks": st.dictionaries(st.sampled_from(["warm-up", "n" * 30]), STEP, max_size=2),
        "migrate": STEP,
        "seed": STEP,
    }
    fixed: dict[str, Any] = {"image": st.sampled_from(["acme/x:1", "acme/x" + DIGEST])}
    if listening:
        fixed["port"] = st.sampled_from([1024, 8000, 65535])
        paths = st.sampled_from(["/", "/health", "/a/b-c_d.e~f"])
        more |= {"health": paths, "ready": paths, "metrics": st.sampled_from(["/metrics", "/m"])}
    return st.fixed_dictionaries(fixed, optional=more)


APP = st.fixed_dictionaries(
    {"name": st.sampled_from(["x", "shop", "a1-b2", "n" * 30]), "version": st.sampled_from(["1", "1.4.0", "v1.0.0-rc.1", "A_b"]),
     "api": service(needs=["database", "cache"], listening=True), "database": st.just({}), "cache": st.just({})},
    optional={"web": service(needs=["api", "database", "cache"], listening=True),
              "worker": service(needs=["api", "database", "cache"], listening=False),
              "visits": st.just(["/", "/about"])},
)  # fmt: skip
MONITORING = st.one_of(
    st.booleans(),
    optional(labels=st.dictionaries(st.sampled_from(["release", "team.example.com/owner"]), st.just("x"))),
)
BACKUP = st.fixed_dictionaries(
    {"target": st.just({"volume": True})},
    optional={"schedule": st.sampled_from(["daily", "*/5 1-3 1,15 jan-mar *", "*/5 1-3 * jan-mar mon-fri"])},
)
CLUSTER = st.fixed_dictionaries(
    {"context": st.just("lab"), "url": st.sampled_from(["http://shop.test", "https://shop.test:8443"]),
     "gateway": st.fixed_dictionaries({"name": st.just("g"), "namespace": st.just("gw"), "inside": st.just("http://g.gw")},
                                      optional={"cidrs": st.just(["10.0.0.0/8"]), "listener": st.just("http")})},
    optional={"hostnames": sublist(["a.test", "*.b.test", "c.test"]), "pull_secrets": sublist(["p1", "p2"]),
              "namespace": optional(name=st.sampled_from(["home", "n" * 30]), quota=st.just({"cpu": 4}), limits=st.just({})),
              "schedule_within": st.sampled_from(["1s", "5m"])},
)  # fmt: skip


@st.composite
def correct(draw: st.DrawFn) -> Configuration:
    """Draw a configuration with correct settings. The program refuses it only if two paths or two names collide."""
    app: Plain = copy.deepcopy(draw(APP))
    cluster = draw(st.booleans())
    settings: Plain = {"platform": "kubernetes" if cluster else "docker", "protect_data": draw(st.booleans())}
    tiers: Plain = {}
    for tier in ("web", "api", "worker"):
        if tier in app:
            tiers[tier] = draw(
                optional(
                    replicas=st.integers(1, 3),
                    cpu=st.sampled_from([0.01, 0.5, 2]),
                    memory=st.sampled_from(["6Mi", "1Gi"]),
                )
            )
            if cluster and app[tier].get("volumes"):
                tiers[tier] |= {"storage_class": "nfs", "storage": "1Gi"}
    if cluster:
        settings["kubernetes"] = draw(CLUSTER)
        tiers["cache"] = draw(optional(ha=st.booleans(), storage=st.just("2Gi")))
        tiers["database"] = draw(optional(ha=st.booleans(), priority_class=st.just("high")))
        settings["registry"] = "registry.test/x"
    if draw(st.booleans()):
        users = {app[tier].get("user", 10_001) for tier in ("web", "api", "worker") if app.get(tier, {}).get("volumes")}
        tiers.setdefault("database", {})
        tiers["database"] |= {"backup": draw(BACKUP)} if len(users) < 2 else {}
    if draw(st.booleans()):
        settings["monitoring"] = draw(MONITORING if cluster else st.booleans())
    if draw(st.booleans()):
        settings["seed"] = True
    settings["tiers"] = tiers
    names = {name for tier in app.values() if isinstance(tier, dict) for name in tier.get("secrets", ())}
    secrets = dict.fromkeys(sorted({*names, "database-password", "cache-password", "backup-key"}), "a-value")
    return Configuration(app=app, environment=settings, secrets=secrets, stack=draw(STACKS))


def paths_inside(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of `value` and of each value nested in `value`. A path is a tuple of keys and indexes."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [path, *(inner for key in keys for inner in paths_inside(value[key], (*path, key)))]


@st.composite
def mutated(draw: st.DrawFn) -> Configuration:
    """Draw a correct configuration, then replace one value or key, and sometimes also the name of the stack."""
    base = draw(correct())
    whole = {"app": copy.deepcopy(base.app), "environment": copy.deepcopy(base.environment)}
    path = draw(st.sampled_from([candidate for candidate in paths_inside(whole) if len(candidate) > 1]))
    *parents, last = path
    inside: Any = whole
    for key in parents:
        inside = inside[key]
    if isinstance(inside, dict) and draw(st.integers(0, 3)) == 0:
        inside[draw(st.sampled_from([*WORDS, *LABELS, *TEXTS]))] = inside.pop(last)
    else:
        inside[last] = draw(ODD)
    stack = draw(ODD_STACKS) if draw(st.integers(0, 9)) == 0 else base.stack
    return Configuration(app=whole["app"], environment=whole["environment"], secrets=base.secrets, stack=stack)


BOUNDS: dict[str, list[Any]] = {
    "start_within": ["1s", "1.5s", "277.8h", "1000h", "87600h"],
    "timeout": ["1s", "1.5s", "277.8h", "1000h", "87600h"],
    "within": ["1s", "1.5s", "277.8h", "1000h", "87600h"],
    "stop_within": ["0s", "1ms", "1.5s", "87600h"],
    "schedule_within": ["0s", "1ms", "1.5s", "87600h"],
    "memory": ["6Mi", "6.5Mi", "6145Ki", "0.006Gi", "65536Gi"],
    "scratch": ["6Mi", "6.5Mi", "65536Gi"],
    "storage": ["64Mi", "64.5Mi", "1048576Gi"],
    "cpu": [0.01, 0.0149, 0.123456, 1, 255.9995, 256],
    "port": [1024, 65535],
    "user": [10_001, 2**31 - 1],
    "image": ["x" * 255 + ":" + "t" * 128, "r.test:65535/a__b/c.d-e:V_1" + DIGEST, "x@sha512:" + "f" * 128],
    "name": ["n" * 30, "a-b-c", "x"],
    "version": ["a" * 40, "A_b.c-1", "0"],
    "health": ["/" + "x" * 1023, "/a.b~c_d-e", "/a%C3%BC", "/x/"],
    "ready": ["/" + "x" * 1023, "/a.b~c_d-e", "/a%C3%BC", "/x/"],
    "metrics": ["/" + "x" * 1023, "/a.b~c_d-e", "/a%C3%BC", "/x/"],
    "command": [["x" * 100_000] * 10, ["$$(X)", "$(HOME)", "$$", "'\"`"], [" "]],
    "env": [{"A" * 100: "x" * 100_000}, {f"A{number}": "v" for number in range(200)}, {"A": "\x7f\u2028\U0001f600"}],
    "writable": [
        ["/" + "a" * 255, "/A", "/a"],
        [f"/w{number}" for number in range(60)],
        ["/run", "/dev/shm", "/usr/local"],
        [],
    ],
    "visits": [["/" + "x" * 1023] * 100, ["/%C3%BC"]],
    "schedule": ["*/59 0-23/22 1,31 jan-dec *", "0 0 29 feb *", "5-5 * * * sun-sun", "0 0 * * sat,sun"],
    "labels": [{"a" * 63: "b" * 63}, {"x.y/Z_1": "0"}, {f"l{number}": "v" for number in range(40)}],
    "hostnames": [[f"h{number}.test" for number in range(15)], ["a" * 63 + ".test"], ["*.x", "x"]],
    "url": ["http://localhost", "https://a.b.c:65535", "http://" + ".".join(["a" * 60] * 4)],
    "cidrs": [["0.0.0.0/0", "::/0"], ["10.1.2.3/8"], ["fd00::1/128"]],
    "replicas": [1, 10],
}
"""Values at the limits and unusual values, by configuration key. The program accepts most of these values."""


@st.composite
def bounded(draw: st.DrawFn) -> Configuration:
    """Draw a correct configuration in which one to four values are replaced by values from BOUNDS."""
    base = draw(correct())
    whole = {"app": copy.deepcopy(base.app), "environment": copy.deepcopy(base.environment)}
    paths = [
        path
        for path in paths_inside(whole)
        if path and path[-1] in BOUNDS and path != ("environment", "kubernetes", "gateway", "name")
    ]
    for path in draw(st.lists(st.sampled_from(paths), min_size=1, max_size=4, unique=True)):
        *parents, last = path
        inside: Any = whole
        for key in parents:
            inside = inside[key]
        # The value may be invalid here, because the limits of a key such as `cpu` depend on its section.
        inside[last] = copy.deepcopy(draw(st.sampled_from(BOUNDS[last])))
    return Configuration(app=whole["app"], environment=whole["environment"], secrets=base.secrets, stack=base.stack)
