"""Print the downtime and the lost writes after the loss of a primary, as tables: `python -m benchmarks.failover`.

The input is `reports/failover.json`, which the end-to-end tests write (`make e2e-data`).
"""

import json
import sys
from pathlib import Path

REPORT = Path(__file__).parents[1] / "reports" / "failover.json"
WORDS = {
    "database": {
        "kill_pod": "its pod is deleted by force",
        "kill_process": "its process is killed",
        "freeze": "all its processes are frozen",
        "kill_two": "its pod and that of a replica are deleted by force",
        "delete_volume": "its volume is deleted, and its pod",
        "kill_operator": "the operator is killed",
        "kill_pod_during_a_release": "its pod is deleted during a release",
    },
    "cache": {
        "delete_pod": "its pod is deleted by force",
        "kill_server": "its process is killed",
        "freeze": "its process is frozen for 20 s",
        "lose_data": "its data is deleted, and its process killed",
        "delete_all": "the pods of all three are deleted by force",
        "stop_pod": "its pod is stopped, as by a drained node",
        "change_each": "each member is changed by an update",
    },
}


def main() -> None:
    report = json.loads(REPORT.read_text())
    for tier, words in WORDS.items():
        print(
            f"| loss of the {tier}'s primary | runs | time without a write: median | longest | acknowledged writes | lost of these |"
        )
        print("|---|---|---|---|---|---|")
        for method, description in words.items():
            if row := report.get(tier, {}).get(method):
                seconds = f"{row['median']:.1f} s | {row['max']:.1f} s"
                print(
                    f"| {description} | {len(row['seconds'])} | {seconds} | {row['acknowledged']:,} | {row['lost']} |"
                )
        print()


if __name__ == "__main__":
    sys.exit(main())
