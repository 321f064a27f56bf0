"""What tasks learn from each other: five at once against five models of one each, on simulated cohorts.

    cargo build --release --workspace --examples && python3 pipelines/studies/tasks.py [--seeds 8411-8415]

Each seed is a cohort. The tasks are a diagnosis, a stage of which a tenth of the training patients' labels are known, a finding, the time to
deterioration and the effects of a treatment. A line of JSON a cohort and set of tasks goes to runs/tasks/tasks.jsonl; those that are there
already are not made again. Prints, for each task, what the joint model that was trained on it alone and on all reaches: AUROC, of times
the concordance, of treatments the share of the best choice's value that its choice has (see response.py); mean and standard deviation over
the seeds, and the time of training (of one thread: have a core for each of --jobs).
"""

import json
import shutil
import subprocess
import tomllib
from statistics import mean

from study import ONE_THREAD, Study, inline, spread

study = Study("tasks", __doc__, "8411-8415", 16000, examples=["policy"])
TABLES = tomllib.loads(study.arguments.toml.read_text())["task"]
TASKS = [table["name"] for table in TABLES]


def reached(at, table, metrics):
    name = table["name"]
    if table["kind"] == "treatment":
        command = [study.example("policy"), at / "run", at / "data", name]
        policy = json.loads(subprocess.run(command, check=True, capture_output=True, text=True, env=ONE_THREAD).stdout)["joint"]
        return policy["model"] / policy["oracle"]
    if table["kind"] == "survival":
        return metrics["endpoints"][name]["variants"]["joint"]["concordance"]["value"]
    return metrics["tasks"][name]["variants"]["joint"]["auroc"]["value"]


def measure(keys):
    seed = keys[0]["seed"]
    at = study.cohort(seed, "")
    for key in keys:
        chosen = [table for table in TABLES if key["trained"] in (table["name"], "all")]
        study.evaluate(at, seed, f"task={inline(chosen)}", "training.singles=false")
        history = [json.loads(line) for line in (at / "run/history.jsonl").read_text().splitlines()]
        seconds = sum(line["seconds"] for line in history if line["variant"] == "joint")
        metrics = json.loads((at / "run/metrics.json").read_text())
        yield key, {"reached": {table["name"]: reached(at, table, metrics) for table in chosen}, "seconds": seconds}
    shutil.rmtree(at)


done = study.lines([[{"seed": seed, "trained": trained} for trained in ("all", *TASKS)] for seed in study.seeds], measure)
together = {line["seed"]: line for line in done if line["trained"] == "all"}
for name in TASKS:
    alone = {line["seed"]: line["reached"][name] for line in done if line["trained"] == name}
    seeds = sorted(alone.keys() & together.keys())
    if seeds:
        all_five = [together[seed]["reached"][name] for seed in seeds]
        one = [alone[seed] for seed in seeds]
        print(f"{name:16} alone {spread(one)}, all at once {spread(all_five)}, difference {spread([a - b for a, b in zip(all_five, one)])}")
seconds = {trained: [line["seconds"] for line in done if line["trained"] == trained] for trained in ("all", *TASKS)}
if all(seconds.values()):
    summed = sum(mean(seconds[name]) for name in TASKS)
    print(f"training the joint model: all at once {mean(seconds['all']):.0f} s, one by one {summed:.0f} s, {mean(seconds['all']) / summed:.2f} of it")
