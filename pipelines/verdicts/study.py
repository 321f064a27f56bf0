"""How often the verdict is right, over many simulated cohorts: where both modalities matter it should say that joining them gains,
and where one is pure noise that there is no evidence of it.

    python3 pipelines/verdicts/study.py [--seeds 9601-9700] [--out runs/verdicts]

Each seed is a cohort of 1,800 patients in which both matter, and one in which the images (odd seeds) or the records (even seeds) have
nothing to do with the label; a small joint model and those of one modality are trained on each, and compared on 30 % of the patients.
A line of JSON a cohort goes to OUT/verdicts.jsonl; those that are there already are not made again. Prints how often each was said.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

HERE = Path(__file__).resolve().parent
# A small model's training keeps one core busy: the others train on other cohorts.
ONE_THREAD = os.environ | {"RAYON_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"}


def verdict(arguments, seed, noise):
    at = arguments.out / f"{seed}-{noise or 'none'}"
    shutil.rmtree(at, ignore_errors=True)
    data, run = at / "data", at / "run"
    told = ["--noise", noise] if noise else []
    cohort = ["--out", data, "--patients", str(arguments.patients), "--seed", str(seed), *told]
    paths = ["--set", f"images.path={data}/dicom", "--set", f"records.path={data}/fhir"]
    for command in [["simulate", *cohort], ["evaluate", HERE / "small.toml", "--run", run, "--seed", str(seed), *paths]]:
        subprocess.run([arguments.synovia, "--quiet", *command], check=True, stdout=subprocess.DEVNULL, env=ONE_THREAD)
    task = json.loads((run / "metrics.json").read_text())["tasks"]["malignant"]
    auroc = {variant: task["variants"][variant]["auroc"]["value"] for variant in ("joint", "image", "record")}
    gain = {key: task["gain"][key] for key in ("over", "difference", "p", "verdict")}
    shutil.rmtree(at)
    return {"seed": seed, "noise": noise, "of": arguments.of, "n": task["n"], "auroc": auroc, "gain": gain}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--synovia", default="target/release/synovia")
    parser.add_argument("--seeds", default="9601-9700")
    parser.add_argument("--patients", type=int, default=1800)
    parser.add_argument("--out", type=Path, default=Path("runs/verdicts"))
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    first, last = map(int, arguments.seeds.split("-"))
    arguments.out.mkdir(parents=True, exist_ok=True)
    log = arguments.out / "verdicts.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    # Lines of other settings or another program say nothing of these.
    version = hashlib.sha256(Path(arguments.synovia).read_bytes()).hexdigest()[:12]
    arguments.of = f"program {version}, {arguments.patients} patients, {hashlib.sha256((HERE / 'small.toml').read_bytes()).hexdigest()[:12]}"
    done = [line for line in lines if first <= line["seed"] <= last and line.get("of") == arguments.of]
    known = {(line["seed"], line["noise"]) for line in done}
    # Those with noise first: where they go wrong, the others need not be waited for.
    seeds = range(first, last + 1)
    cohorts = [(seed, "image" if seed % 2 else "record") for seed in seeds] + [(seed, "") for seed in seeds]
    with ThreadPoolExecutor(arguments.jobs) as pool, open(log, "a") as file:
        for made in as_completed([pool.submit(verdict, arguments, *cohort) for cohort in cohorts if cohort not in known]):
            if made.exception():
                print(made.exception())
                continue
            done.append(made.result())
            file.write(json.dumps(done[-1]) + "\n")
            file.flush()
    for noise in sorted({line["noise"] for line in done}):
        lines = [line for line in done if line["noise"] == noise]
        mean = {variant: sum(line["auroc"][variant] for line in lines) / len(lines) for variant in ("joint", "image", "record")}
        verdicts = Counter(line["gain"]["verdict"] for line in lines)
        print(json.dumps({"noise": noise or "none", "cohorts": len(lines), "verdicts": verdicts, "mean_auroc": mean}))


if __name__ == "__main__":
    main()
