"""Tests of the board on a Docker engine. The tests run in file order: use, restart, edit, release, failed releases, removal."""

import json
import re
import threading
import time

import pytest
import requests

from .stack import SECRETS, DockerStack, eventually, steady_requests


def test_all_five_tiers_answer(stack: DockerStack) -> None:
    outputs = stack.outputs()
    assert outputs["url"] == stack.url
    assert (outputs["live"], outputs["release"].split("-")[0]) == ("blue", "1.0.0")
    page = stack.get("/")
    assert (page.status_code, page.headers["X-Release"]) == (200, outputs["release"])
    assert stack.get("/api/release").json() == {"release": outputs["release"], "slot": "blue"}
    assert stack.get("/release.json").json() == {"release": outputs["release"], "slot": "blue"}


def test_board_with_seed_data_stores_messages_and_runs_their_jobs(stack: DockerStack) -> None:
    eventually(lambda: stack.get("/api/stats").json()["summarised"] == 3)
    message = stack.post("a message with a word like rhubarb and some more of them to shorten")
    messages = stack.get("/api/search", params={"q": "rhubarb"}).json()
    assert [entry["id"] for entry in messages] == [message["id"]]
    path = f"/api/messages/{message['id']}"
    eventually(lambda: stack.get(path).json()["summary"] is not None)
    assert stack.get(path).json()["summary"].startswith("a message with a word like rhubarb and")
    stats = stack.get("/api/stats").json()
    assert (stats["messages"], stats["summarised"], stats["processed"], stats["attempts"]) == (4, 4, 4, 4)


def test_pages_have_the_headers_of_a_single_page_app(stack: DockerStack) -> None:
    page = stack.get("/some/page/of/the/app")
    assert (page.status_code, page.headers["Cache-Control"]) == (200, "no-store")
    for header in ("X-Frame-Options", "X-Content-Type-Options", "Referrer-Policy", "Content-Security-Policy"):
        assert header in page.headers
    assert stack.get("/assets/no-such.js").status_code == 404
    assert stack.get("/assets/board.css", headers={"Accept-Encoding": "gzip"}).headers["Content-Encoding"] == "gzip"


def test_feed_announces_new_messages(stack: DockerStack) -> None:
    with stack.get("/api/feed", stream=True) as feed:
        lines = feed.iter_lines()
        assert next(lines) == b"event: hello"
        message = stack.post("for the feed")
        events = (json.loads(line[6:]) for line in lines if line.startswith(b'data: {"type"'))
        assert next(events)["id"] == message["id"]


def test_request_id_of_a_client_is_kept_and_a_missing_request_id_is_created(stack: DockerStack) -> None:
    assert stack.get("/api/stats", headers={"X-Request-Id": "mine-1"}).headers["X-Request-Id"] == "mine-1"
    assert len(stack.get("/api/stats").headers["X-Request-Id"]) == 36
    [api] = [container for container in stack.containers() if container.name.endswith("blue-api-1")]
    lines = [json.loads(line) for line in api.logs().decode().splitlines() if line.startswith("{")]
    assert any(line.get("request_id") == "mine-1" and line["message"] == "request" for line in lines)


def test_make_trace_prints_log_lines_of_a_request_from_all_tiers(stack: DockerStack) -> None:
    headers = {"X-Request-Id": "trace-e2e-1"}
    message = {"author": "e2e", "body": "to be followed"}
    posted = requests.post(f"{stack.url}/api/messages", json=message, headers=headers, timeout=10).json()
    eventually(lambda: stack.get(f"/api/messages/{posted['id']}").json()["processed"] == 1)
    stack.get("/", headers=headers)
    # Let an SQL statement of the request wait for a lock, and cancel the statement. PostgreSQL then logs the statement with the
    # request id, because the api writes the request id into a comment of each statement.
    [database] = [container for container in stack.containers() if container.name.endswith("-database-1")]
    psql = f"psql -U {stack.app['database']['user']} -d {stack.app['database']['name']} -Atc"
    locking_thread = threading.Thread(
        target=lambda: database.exec_run(f'{psql} "BEGIN; LOCK TABLE messages; SELECT pg_sleep(5)"')
    )
    locking_thread.start()
    time.sleep(1)
    waiting_thread = threading.Thread(target=lambda: stack.get("/api/messages?limit=7", headers=headers))
    waiting_thread.start()
    is_traced = "pid <> pg_backend_pid() AND query LIKE '/* request trace-e2e-1 */%' AND state = 'active'"
    cancel = f'{psql} "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE {is_traced}"'
    eventually(lambda: database.exec_run(cancel).output.decode().strip() == "t")
    for thread in (waiting_thread, locking_thread):
        thread.join()
    lines = [line.split()[1:] for line in stack.run_ci("trace", "trace-e2e-1").splitlines() if line[:1].isdigit()]
    tiers = [words[0] for words in lines]
    assert set(tiers) == {"gateway", "web", "api", "worker", "database"}
    assert tiers.index("api") < tiers.index("worker")
    release = stack.outputs()["release"]
    for tier, *words in lines:
        assert tier == "database" or words[:2] == ["blue", release], words


def test_metrics_are_exported_and_hidden_from_users(stack: DockerStack) -> None:
    assert stack.get("/metrics").status_code == 404
    [api] = [container for container in stack.containers() if container.name.endswith("blue-api-1")]
    code = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8000/metrics').read().decode())"
    text = api.exec_run(["python", "-c", code]).output.decode()
    for metric in ("http_request_duration_seconds_bucket", "board_queue_depth", "http_request_errors_total"):
        assert metric in text


def test_second_update_changes_nothing(stack: DockerStack) -> None:
    changed = stack.up().changes
    assert set(changed) == {"unchanged"}
    assert changed["unchanged"] > 30


def test_only_the_gateway_is_reachable_from_the_host(stack: DockerStack) -> None:
    published = {
        container.name: bindings
        for container in stack.containers()
        if (bindings := {port: addresses for port, addresses in container.ports.items() if addresses})
    }
    assert list(published) == ["board-e2e-gateway"]
    assert published["board-e2e-gateway"] == {
        "8080/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(stack.environment["gateway"]["port"])}]
    }
    for zone in ("edge", "data"):
        network = stack.engine.networks.get(f"board-e2e-{zone}").attrs
        assert network["Internal"] is True
        assert network["Options"]["com.docker.network.bridge.inhibit_ipv4"] == "true"


def test_every_container_is_hardened(stack: DockerStack) -> None:
    started = [container for container in stack.containers() if container.status != "created"]
    assert len(started) >= 9
    for container in started:
        host, config = container.attrs["HostConfig"], container.attrs["Config"]
        assert config["User"].split(":")[0] not in ("", "0", "root"), container.name
        assert host["ReadonlyRootfs"], container.name
        assert host["CapDrop"] == ["ALL"], container.name
        assert host["SecurityOpt"] == ["no-new-privileges:true"], container.name
        assert host["Memory"] > 0, container.name
        assert host["NanoCpus"] > 0, container.name
        assert host["LogConfig"] == {"Type": "json-file", "Config": {"max-file": "3", "max-size": "10m"}}, (
            container.name
        )
        assert host["RestartPolicy"]["Name"] == ("unless-stopped" if container.status == "running" else "no"), (
            container.name
        )


def test_no_secret_is_in_plain_text_anywhere(stack: DockerStack) -> None:
    sources = {"the state": stack.pulumi("stack", "export", check=True).text}
    for file in (stack.folder / ".state").rglob("*.json"):
        sources[f"the state file {file.name}"] = file.read_text()
    for container in stack.containers():
        sources[f"inspect {container.name}"] = json.dumps(container.attrs)
        sources[f"logs of {container.name}"] = container.logs().decode(errors="replace")
        if container.status == "running":
            sources[f"processes of {container.name}"] = json.dumps(container.top())
        sources[f"image of {container.name}"] = json.dumps([container.image.attrs, container.image.history()])
    sources["the program's output"] = stack.pulumi("preview", "--diff", check=True).text
    for source, text in sources.items():
        for value in SECRETS.values():
            assert value not in text, source
    [api] = [container for container in stack.containers() if container.name.endswith("blue-api-1")]
    assert api.exec_run(["cat", "/run/secrets/database-password"]).output.decode() == SECRETS["database-password"]


def test_data_survives_a_restart_of_every_container(stack: DockerStack) -> None:
    [worker] = [container for container in stack.containers() if container.name.endswith("blue-worker-1")]
    worker.stop()
    message = stack.post("written before the restart")
    before = stack.get("/api/stats").json()
    assert before["summarised"] == before["messages"] - 1
    for container in stack.containers():
        if container.status == "running":
            container.restart()
    # Start the worker after all restarts, because the job must wait in the cache while the cache restarts.
    worker.start()
    expected = (before["messages"], before["messages"], 1)
    counts = ("messages", "processed", "most_attempts")
    eventually(lambda: tuple(stack.get("/api/stats").json()[key] for key in counts) == expected, seconds=60)
    assert stack.get(f"/api/messages/{message['id']}").json()["summary"]
    assert stack.get("/api/release").json()["slot"] == "blue"
    assert set(stack.up().changes) == {"unchanged"}


def test_stopped_worker_finishes_its_current_job_and_starts_no_other_job(stack: DockerStack) -> None:
    [worker] = [container for container in stack.containers() if container.name.endswith("blue-worker-1")]
    job = stack.post("a long job", work_seconds=4)
    eventually(lambda: stack.get(f"/api/messages/{job['id']}").json()["attempts"] == 1)
    waiting_message = stack.post("waits for the next worker")
    worker.stop(timeout=60)
    assert stack.get(f"/api/messages/{job['id']}").json()["processed"] == 1
    assert stack.get(f"/api/messages/{waiting_message['id']}").json()["attempts"] == 0
    worker.start()
    eventually(lambda: stack.get(f"/api/messages/{waiting_message['id']}").json()["processed"] == 1)
    assert stack.get("/api/stats").json()["most_attempts"] == 1


def test_edited_source_is_reloaded(stack: DockerStack) -> None:
    api = stack.folder / "examples/board/api/board"
    main = api / "main.py"
    main.write_text(main.read_text().replace('"slept": seconds', '"slept": seconds, "edited": 1'))
    eventually(lambda: stack.get("/api/slow?seconds=0").json().get("edited") == 1)
    page = stack.folder / "examples/board/web/src/index.html"
    page.write_text(page.read_text().replace("<h1>board</h1>", "<h1>edited board</h1>"))
    eventually(lambda: "edited board" in stack.get("/").text)
    jobs = api / "jobs.py"
    jobs.write_text(jobs.read_text().replace("words[:8]", "words[:2]"))

    def is_shortened() -> bool:
        message = stack.post("one two three four")
        eventually(lambda: stack.get(f"/api/messages/{message['id']}").json()["summary"] is not None)
        return stack.get(f"/api/messages/{message['id']}").json()["summary"] == "one two …"

    jobs_line = "words[:2]"
    assert jobs_line in jobs.read_text()
    jobs.write_text(jobs.read_text().replace("> 8", "> 2"))
    eventually(is_shortened, seconds=60)


def test_release_goes_to_the_idle_slot_and_loses_no_request(stack: DockerStack) -> None:
    before = stack.get("/api/stats").json()["messages"]
    stack.app["version"] = "1.1.0"
    with steady_requests(stack) as statuses:
        stack.up()
    outputs = stack.outputs()
    assert (outputs["live"], outputs["release"].split("-")[0]) == ("green", "1.1.0")
    assert outputs["standby"].startswith("1.0.0-")
    assert set(statuses) == {"200", "201"}, statuses
    assert stack.get("/api/stats").json()["messages"] == before + statuses["201"]
    assert stack.get("/api/release").json()["slot"] == "green"
    assert set(stack.up().changes) == {"unchanged"}


def test_rollback_switches_traffic_and_replaces_no_object(stack: DockerStack) -> None:
    with steady_requests(stack) as statuses:
        result = stack.up(TIERS_RELEASE="previous")
    assert result.changes["created"] == 2, "only the suspended worker and the switch are created"
    assert "replaced" not in result.changes
    assert set(statuses) <= {"200", "201"}, statuses
    assert stack.get("/api/release").json()["slot"] == "blue"
    stack.up()
    assert stack.get("/api/release").json()["slot"] == "green"


def test_images_built_without_reload_serve_cacheable_assets(stack: DockerStack) -> None:
    stack.environment["reload"] = False
    with steady_requests(stack) as statuses:
        stack.up()
    assert set(statuses) == {"200", "201"}, statuses
    assert stack.get("/api/release").json()["slot"] == "blue"
    [asset] = re.findall(r"/assets/board\.[0-9a-f]{8}\.js", stack.get("/").text)
    answer = stack.get(asset)
    assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert answer.headers["Content-Encoding"] == "gzip"


def test_stopped_api_answers_a_running_request_before_the_container_ends(stack: DockerStack) -> None:
    [api] = [container for container in stack.containers() if container.name.endswith("blue-api-1")]
    answers: list[int] = []
    request_thread = threading.Thread(target=lambda: answers.append(stack.get("/api/slow?seconds=4").status_code))
    request_thread.start()
    time.sleep(1)
    api.stop(timeout=30)
    request_thread.join()
    assert answers == [200]
    api.start()
    eventually(lambda: stack.get("/api/stats").status_code == 200, seconds=60)


def test_unhealthy_release_reports_the_cause_and_leaves_the_live_slot_unchanged(stack: DockerStack) -> None:
    live = stack.get("/api/release").json()
    running = {container.name: container.id for container in stack.containers() if "-blue-" in container.name}
    main = stack.folder / "examples/board/api/board/main.py"
    valid = main.read_text()
    stack.app["api"]["start_within"] = "8s"
    main.write_text(
        valid.replace(
            'state = {"database": "ok"', 'raise RuntimeError("the moon is wrong")\n    state = {"database": "ok"'
        )
    )
    with steady_requests(stack) as statuses:
        failed = stack.up(check=False)
    assert failed.code
    assert "app.api: container board-e2e-green-api-1: not healthy within 8s" in failed.text
    assert "the moon is wrong" in failed.text
    assert stack.get("/api/release").json() == live
    assert set(statuses) <= {"200", "201"}, statuses
    assert {container.name: container.id for container in stack.containers() if "-blue-" in container.name} == running
    second_update = stack.up(check=False)
    assert second_update.code, "the second update must not accept the unhealthy container"
    assert stack.get("/api/release").json() == live
    main.write_text(valid)
    stack.up()
    assert stack.get("/api/release").json()["slot"] == "green"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"web": {"image": "board-nothing:0.0.1"}}, "app.web.image: board-nothing:0.0.1 can't be pulled or built"),
        ({"web": {"build": "examples/nowhere"}}, "app.web.build: examples/nowhere does not exist"),
        ({"api": {"migrate": {"command": ["sh", "-c", "echo the table is on fire; exit 9"]}}}, "the table is on fire"),
    ],
    ids=["no-such-image", "no-such-folder", "failing-migration"],
)
def test_release_with_failing_build_or_migration_reports_the_cause_and_leaves_the_live_slot_unchanged(
    stack: DockerStack, change: dict[str, dict[str, object]], message: str
) -> None:
    live = stack.get("/api/release").json()
    valid = json.loads(json.dumps(stack.app))
    for tier, values in change.items():
        if {"image", "build"} & set(values):
            stack.app[tier].pop("build")
        stack.app[tier] |= values
    failed = stack.up(check=False)
    assert failed.code
    assert message in failed.text
    assert stack.get("/api/release").json() == live
    stack.app.clear()
    stack.app |= valid
    stack.up()
    assert stack.get("/api/release").json() == live


@pytest.mark.long
def test_changed_secret_causes_a_new_release(stack: DockerStack) -> None:
    live = stack.get("/api/release").json()
    stack.pulumi("config", "set", "--secret", "--path", "secrets.cache-password", "e2e-another", check=True)
    assert stack.up().code == 0
    assert stack.get("/api/release").json()["slot"] != live["slot"]
    message = stack.post("with another password")
    eventually(lambda: stack.get(f"/api/messages/{message['id']}").json()["processed"] == 1)
    assert set(stack.up().changes) == {"unchanged"}


def test_destroy_of_a_stack_with_protected_data_is_refused(stack: DockerStack) -> None:
    stack.environment["protect_data"] = True
    stack.up()
    running = {container.id for container in stack.containers()}
    refused = stack.destroy(check=False)
    assert refused.code
    assert {container.id for container in stack.containers()} == running
    assert "protect" in refused.text
    assert "database-data" in refused.text
    assert stack.get("/api/stats").status_code == 200
    stack.environment["protect_data"] = False
    stack.up()


def test_destroy_leaves_no_object(stack: DockerStack) -> None:
    stack.destroy()
    assert stack.leftovers() == []
