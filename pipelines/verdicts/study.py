"""How often the verdict is right, over many simulated cohorts: where both modalities matter it should say that joining them gains,
and where one is pure noise that there is no evidence of it.

    python3 pipelines/verdicts/study.py [--seeds 9001-9100] [--out runs/verdicts]

Each seed is a cohort of 1,200 patients in which both matter, and one in which the images (odd seeds) or the records (even seeds) have
nothing to do with the label; a small joint model and those of one modality are trained on each, and compared on 30 % of the patients.
A line of JSON a cohort goes to OUT/verdicts.jsonl; those that are there already are not made again. Prints how often each was said.
"""

import argparse
import json
import shutil
import subprocess
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--synovia", default="target/release/synovia")
    parser.add_argument("--seeds", default="9001-9100")
    parser.add_argument("--patients", default="1200")
    parser.add_argument("--out", type=Path, default=Path("runs/verdicts"))
    arguments = parser.parse_args()
    first, last = map(int, arguments.seeds.split("-"))
    arguments.out.mkdir(parents=True, exist_ok=True)
    log = arguments.out / "verdicts.jsonl"
    done = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    known = {(line["seed"], line["noise"]) for line in done}
    for seed in range(first, last + 1):
        for noise in ["", "image" if seed % 2 else "record"]:
            if (seed, noise) in known:
                continue
            data, run = arguments.out / "data", arguments.out / "run"
            for folder in (data, run):
                shutil.rmtree(folder, ignore_errors=True)
            command = [arguments.synovia, "--quiet"]
            told = ["--noise", noise] if noise else []
            subprocess.run([*command, "simulate", "--out", data, "--patients", arguments.patients, "--seed", str(seed), *told], check=True)
            settings = ["--run", run, "--seed", str(seed), "--set", f"images.path={data}/dicom", "--set", f"records.path={data}/fhir"]
            subprocess.run([*command, "evaluate", HERE / "small.toml", *settings], check=True, stdout=subprocess.DEVNULL)
            task = json.loads((run / "metrics.json").read_text())["tasks"]["malignant"]
            auroc = {variant: task["variants"][variant]["auroc"]["value"] for variant in ("joint", "image", "record")}
            gain = {key: task["gain"][key] for key in ("over", "difference", "p", "verdict")}
            line = {"seed": seed, "noise": noise, "n": task["n"], "auroc": auroc, "gain": gain}
            done.append(line)
            with open(log, "a") as file:
                file.write(json.dumps(line) + "\n")
    for noise in sorted({line["noise"] for line in done}):
        lines = [line for line in done if line["noise"] == noise]
        mean = {variant: sum(line["auroc"][variant] for line in lines) / len(lines) for variant in ("joint", "image", "record")}
        verdicts = Counter(line["gain"]["verdict"] for line in lines)
        print(json.dumps({"noise": noise or "none", "cohorts": len(lines), "verdicts": verdicts, "mean_auroc": mean}))


if __name__ == "__main__":
    main()
