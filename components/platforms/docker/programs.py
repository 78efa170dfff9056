"""BusyBox for containers whose image has no shell and no HTTP client: health checks, time limits and variables with secrets.

A volume contains the static program `busybox` of the image `environment.docker.busybox`. Containers mount the volume read-only at
`FOLDER`. A static program needs no library, so it also runs in an image that was built `FROM scratch`.
"""

from collections.abc import Sequence

from ...model.workload import SECRETS, Probe, Secret, Task
from ..process import probe_headers

FOLDER = "/.tiers"
"""Folder of BusyBox in a container. The folder does not exist in images, so it hides no file of an application."""
BUSYBOX = f"{FOLDER}/busybox"
SOURCE = "/bin"
"""Folder of the static `busybox` in its image. The engine copies the folder into an empty volume that a new container mounts there
(docs.docker.com/engine/storage/volumes, "Populate a volume using a container")."""
ENV_FOLDER = f"{SECRETS}/.env"
"""Folder of the files with secrets for environment variables. The name of a file is the name of its variable."""

_EXPORT = """\
folder=$1; shift
for file in "$folder"/*; do
  value=$("$0" cat "$file"; echo .)
  export "${file##*/}=${value%.}"
done
exec "$@\""""
_LIMIT = """\
limit=$1; shift
"$@" & command=$!
("$0" sleep "$limit"; kill -ALRM $$) >/dev/null 2>&1 & watcher=$!
trap 'kill -TERM $command; ("$0" sleep 10; kill -KILL $command) >/dev/null 2>&1 & wait $command; exit 124' ALRM
trap 'kill -TERM $command' TERM INT
wait $command; code=$?
while kill -0 $command 2>/dev/null; do wait $command; code=$?; done
kill $watcher
exit $code"""


def export(folders: Sequence[str]) -> list[str]:
    """Return the beginning of a command that gets environment variables from the files in folders.

    The shell replaces itself by the command that follows. Values are read from files, so they are neither in the arguments of a process
    nor in the container's settings, which `docker inspect` shows. Files of a later folder replace those of an earlier one.
    """
    return [word for folder in folders for word in (BUSYBOX, "sh", "-c", _EXPORT, BUSYBOX, folder)]


def export_of(entrypoint: Sequence[str]) -> list[str]:
    """Return the words of the function `export` at the beginning of a container's entrypoint, or no words without them.

    A command of `docker exec` must begin with the same words. Otherwise it would get only the variables without secrets.
    """
    length = len(export([ENV_FOLDER]))
    return list(entrypoint[:length]) if list(entrypoint[:length]) == export([ENV_FOLDER]) else []


def limit(seconds: float) -> list[str]:
    """Return the beginning of a command that is ended after a number of seconds, with exit code 124.

    The command gets SIGTERM, and SIGKILL 10 s later. The exit code is 124 even if the command handles SIGTERM and ends with 0.
    """
    # Don't format large numbers with `g`: from a million on it writes an exponent, which `sleep` can't read.
    text = f"{seconds:g}" if seconds < 10**6 else f"{seconds:.0f}"
    return [BUSYBOX, "sh", "-c", _LIMIT, BUSYBOX, text]


def request(probe: Probe, url: str) -> list[str]:
    """Return the command of an HTTP health check, which passes if the response has status 200.

    Args:
        probe: the health check.
        url: address that users open. The request has the headers of a request to this address; empty for no headers.
    """
    values = probe_headers(probe, url) if url else {}
    headers = [word for name, value in values.items() for word in ("--header", f"{name}: {value}")]
    return [BUSYBOX, "wget", "-q", "-O", "/dev/null", *headers, f"http://127.0.0.1:{probe.port}{probe.path}"]


def env_folder(secret: Secret) -> str:
    """Return the folder of the file with a secret for an environment variable. Values that only tasks get have a folder of their own."""
    return f"{SECRETS}/.{secret.name.partition('.')[0]}"


def env_file(name: str, secret: Secret) -> str:
    """Return the path of the file with the value of the environment variable `name`."""
    return f"{env_folder(secret)}/{name}"


def env_folders(task: Task | None = None) -> list[str]:
    """Return the folders with the variables of a workload or of one of its tasks, for `export`."""
    further = {env_folder(secret): None for _, secret in task.secret_env} if task else {}
    return [ENV_FOLDER, *further]
