"""Fed-Heart-Disease, over five seeds: what four hospitals learn in one place, together, and each alone.

    python3 pipelines/heart/study.py ../shared/data/heart [--rounds 50] [--set training.learning_rate=0.01] [--method fedprox:0.1]

The folder holds the four `processed.*.data` files and `split.csv`. Prints accuracy on the test patients of all hospitals, mean and
standard deviation over the seeds. Published, with logistic regression: pooled .7953 ± .0028, FedAvg .7480 ± .0268.
"""

import argparse
import csv
import json
import shutil
import statistics
import subprocess
from pathlib import Path

COLUMNS = ["age", "sex", "cp", "trestbps", "chol", "fbs", "restecg", "thalach", "exang", "oldpeak"]
# The first level of each is dropped.
LEVELS = {"cp": [2, 3, 4], "restecg": [1, 2]}
HERE = Path(__file__).resolve().parent


def tables(source, out):
    """A table a hospital: rows without a missing value, categories as columns of 0 and 1. Returns the hospitals."""
    splits = {(row["hospital"], int(row["line"])): row["split"] for row in csv.DictReader(open(source / "split.csv"))}
    hospitals = sorted({hospital for hospital, _ in splits})
    out.mkdir(parents=True, exist_ok=True)
    for hospital in hospitals:
        lines = (source / f"processed.{hospital}.data").read_text().splitlines()
        with open(out / f"{hospital}.csv", "w", newline="") as file:
            names = ["patient", "split", *(name for name in COLUMNS if name not in LEVELS)]
            names += [f"{name} {level}" for name, levels in LEVELS.items() for level in levels] + ["num"]
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            for number, line in enumerate(lines, 1):
                split = splits.get((hospital, number))
                if split is None:
                    continue
                cells = line.split(",")
                values = dict(zip(COLUMNS, cells))
                row = {"patient": f"{hospital}-{number}", "split": split, "num": cells[13]}
                for name, value in values.items():
                    if name in LEVELS:
                        row |= {f"{name} {level}": int(float(value) == level) for level in LEVELS[name]}
                    else:
                        row[name] = value
                writer.writerow(row)
    return hospitals


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("--synovia", default="target/release/synovia")
    parser.add_argument("--out", type=Path, default=Path("runs/heart"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 43, 44, 45, 46])
    parser.add_argument("--rounds", default="50")
    parser.add_argument("--local-epochs", default="1")
    parser.add_argument("--method", default="fedavg")
    parser.add_argument("--keep", action="append", default=[], help="what stays at each hospital")
    parser.add_argument("--set", action="append", default=[], help="a setting of the pipeline")
    parser.add_argument("--flower", metavar="PYTHON", help="also through a real Flower, by this Python (`.flower/venv/bin/python`)")
    options = parser.parse_args()
    pipeline = str(HERE / "heart.toml")
    hospitals = tables(options.source, Path("data/heart"))

    def synovia(*arguments):
        done = subprocess.run([options.synovia, *map(str, arguments), "--quiet"], capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(done.stderr)
        return done.stdout

    def through_flower(run):
        """Accuracy of what four SuperNodes made together, and whether its last weights are the simulation's to the byte."""
        out = run / "flower"
        command = [options.flower, HERE.parent / "federation/run_local.py", "--sites", run / "sites", "--out", out, "--tls"]
        command += ["--synovia", options.synovia, "--rounds", options.rounds, "--set", f"local-epochs={options.local_epochs}"]
        command += ["--set", f'method="{options.method}"', "--set", "least-examples=10", "--set", f'keep="{" ".join(options.keep)}"']
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        n, right = 0, 0.0
        for hospital in hospitals:
            of = ["--run", run / "sites" / hospital, "--site", hospital, "--plan", out / "plan.json", "--weights", out / "best.safetensors"]
            measured = json.loads(synovia("federate", "evaluate", *of))["test"]["disease"]
            n, right = n + measured["n"], right + measured["n"] * measured["accuracy"]
        last = f"round-{int(options.rounds):05}.safetensors"
        [simulated] = (run / "all/federation/together").glob(f"*/{last}")
        return right / n, (out / last).read_bytes() == simulated.read_bytes()

    rows = []
    for seed in options.seeds:
        run = options.out / str(seed)
        shutil.rmtree(run, ignore_errors=True)
        settings = [part for value in [f"seed={seed}", *options.set] for part in ("--set", value)]
        for hospital in hospitals:
            site = run / "sites" / hospital
            table = ["--set", f"records.path=data/heart/{hospital}.csv"]
            site.mkdir(parents=True, exist_ok=True)
            synovia("federate", "state", pipeline, "--run", site, "--site", hospital, "--out", site / "statement.json", *settings, *table)
        terms = ["--rounds", options.rounds, "--local-epochs", options.local_epochs, "--method", options.method, "--least-examples", 10]
        terms += [part for what in options.keep for part in ("--keep", what)]
        synovia("federate", "simulate", pipeline, "--run", run / "all", "--runs", run / "sites", "--central", *terms, *settings)
        report = json.loads((run / "all/federation/report.json").read_text())
        central, pooled = report["central"]["disease"], report["pooled"]["disease"]
        row = {"seed": seed, "one place": central["alone_accuracy"], "together": pooled["together_accuracy"], "alone": pooled["alone_accuracy"]}
        row["n"] = pooled["n"]
        if options.flower:
            row["flower"], row["same bytes"] = through_flower(run)
        rows.append(row)
        print(json.dumps(row), flush=True)
    for what in ["one place", "together", "alone", *(["flower"] if options.flower else [])]:
        values = [row[what] for row in rows]
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        print(f"{what:<10} {statistics.mean(values):.4f} ± {spread:.4f}")


if __name__ == "__main__":
    main()
