"""kubectl get mdep NAME -o json | phases.py REVISION SECONDS: where the time from apply to Ready went."""

import json
import sys

revision, total = sys.argv[1], float(sys.argv[2])
revisions = json.load(sys.stdin)["status"]["revisions"]
phases = next(r for r in revisions if r["name"] == revision).get("coldStartSeconds", {})
rest = total - sum(phases.values())
print(f"{'apply until Ready':<28} {total:5.1f} s")
print(f"  {'resolve pod, Kubernetes':<26} {rest:5.1f} s")
for phase in ("schedule", "pull", "fetch", "load", "warmup"):
    print(f"  {phase:<26} {phases.get(phase, 0):5.1f} s")
