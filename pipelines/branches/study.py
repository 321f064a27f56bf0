"""What modalities learn from each other where few labels are known: simulated cohorts of 4,000 patients, of whom 2,000 train.

    python3 pipelines/branches/study.py [--seeds 8201-8205] [--out runs/branches]

Of each cohort, whose seed is new, models are trained with so many of the training patients' labels: 300 (a share of 0.15) with branches
that teach each other, 10 % with them, and 30 % without. A line of JSON a cohort and setting goes to OUT/branches.jsonl; those that are
there already are not made again. Prints, for each setting, AUROCs, and for the branches of the joint model by how much each is better
than the model that was trained on its modality alone (DeLong).
"""

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

HERE = Path(__file__).resolve().parent
# A small model's training keeps one core busy: the others train on other cohorts.
ONE_THREAD = os.environ | {"RAYON_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"}
BRANCHES = "training.branches={ own = 0.5, joint = 1.0 }"
SETTINGS = {
    "300 labelled, branches": ["task.0.labelled=0.15", BRANCHES],
    "10 % labelled, branches": ["task.0.labelled=0.1", BRANCHES],
    "10 % labelled": ["task.0.labelled=0.1"],
    "30 % labelled": ["task.0.labelled=0.3"],
}


def cohort(arguments, seed, wanted):
    at = arguments.out / str(seed)
    shutil.rmtree(at, ignore_errors=True)
    data = at / "data"
    call = lambda *command: subprocess.run(
        [arguments.synovia, "--quiet", *map(str, command)], check=True, stdout=subprocess.DEVNULL, env=ONE_THREAD
    )
    call("simulate", "--out", data, "--patients", arguments.patients, "--seed", seed)
    lines = []
    for name in wanted:
        paths = [f"images.path={data}/dicom", f"records.path={data}/fhir", *SETTINGS[name]]
        sets = [part for setting in paths for part in ("--set", setting)]
        call("evaluate", arguments.toml, "--run", at / "run", "--seed", seed, *sets)
        task = json.loads((at / "run/metrics.json").read_text())["tasks"]["malignant"]
        auroc = {variant: measured["auroc"]["value"] for variant, measured in task["variants"].items()}
        branches = {line["of"]: {"difference": line["auroc"]["value"], "p": line["p"]} for line in task["branches"]}
        lines.append({"seed": seed, "setting": name, "of": arguments.of, "n": task["n"], "auroc": auroc, "branches": branches, "gain": task["gain"]["verdict"]})
    shutil.rmtree(at)
    return lines


def spread(values):
    return f"{statistics.mean(values):.4f} ± {statistics.stdev(values):.4f}" if len(values) > 1 else f"{values[0]:.4f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--synovia", default="target/release/synovia")
    parser.add_argument("--seeds", default="8201-8205")
    parser.add_argument("--patients", type=int, default=4000)
    parser.add_argument("--toml", type=Path, default=HERE / "scarce.toml")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path, default=Path("runs/branches"))
    arguments = parser.parse_args()
    first, last = map(int, arguments.seeds.split("-"))
    arguments.out.mkdir(parents=True, exist_ok=True)
    log = arguments.out / "branches.jsonl"
    done = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    # Lines of other settings or another program say nothing of these.
    version = hashlib.sha256(Path(arguments.synovia).read_bytes()).hexdigest()[:12]
    settings = hashlib.sha256(arguments.toml.read_bytes() + json.dumps(SETTINGS).encode()).hexdigest()[:12]
    arguments.of = f"program {version}, {arguments.patients} patients, {settings}"
    done = [line for line in done if first <= line["seed"] <= last and line.get("of") == arguments.of]
    known = {(line["seed"], line["setting"]) for line in done}
    missing = {seed: [name for name in SETTINGS if (seed, name) not in known] for seed in range(first, last + 1)}
    with ThreadPoolExecutor(arguments.jobs) as pool, open(log, "a") as file:
        jobs = [pool.submit(cohort, arguments, seed, wanted) for seed, wanted in missing.items() if wanted]
        for made in as_completed(jobs):
            if made.exception():
                print(made.exception())
                continue
            for line in made.result():
                done.append(line)
                file.write(json.dumps(line) + "\n")
            file.flush()
    for name in SETTINGS:
        lines = [line for line in done if line["setting"] == name]
        if not lines:
            continue
        print(f"{name}: {len(lines)} cohorts of {lines[0]['n']} test examples")
        for variant in lines[0]["auroc"]:
            print(f"  {variant:16} AUROC {spread([line['auroc'][variant] for line in lines])}")
        for branch in lines[0]["branches"]:
            of = [line["branches"][branch] for line in lines]
            better = sum(one["p"] is not None and one["p"] < 0.05 and one["difference"] > 0 for one in of)
            print(f"  {branch:16} against its modality alone {spread([one['difference'] for one in of])}; p < 0.05 in {better} of {len(of)}")


if __name__ == "__main__":
    main()
