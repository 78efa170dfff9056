"""The table of what tests/e2e/test_failover.py measured: `python -m benchmarks.failover`, after `make e2e-data`."""

import json
import sys
from pathlib import Path

REPORT = Path(__file__).parents[1] / "reports" / "failover.json"
WORDS = {
    "kill_pod": "the primary's pod is deleted by force",
    "kill_process": "its process is killed",
    "freeze": "all its processes are frozen",
    "delete_volume": "its volume is deleted, and its pod",
    "kill_operator": "the operator is killed",
    "kill_pod_during_a_release": "the primary's pod is deleted in the midst of a release",
}


def main() -> None:
    seen = json.loads(REPORT.read_text())
    print("| what is lost | times | without a write: median | most | acknowledged | lost |\n|---|---|---|---|---|---|")
    for name, words in WORDS.items():
        if row := seen.get(name):
            figures = [
                len(row["seconds"]),
                f"{row['median']:.1f} s",
                f"{row['max']:.1f} s",
                row["acknowledged"],
                row["lost"],
            ]
            print(f"| {words} | {' | '.join(str(each) for each in figures)} |")


if __name__ == "__main__":
    sys.exit(main())
