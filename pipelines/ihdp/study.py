"""IHDP, over ten replications: how well the effect of a treatment on each infant is estimated.

    python3 pipelines/ihdp/study.py ../shared/data/ihdp [--seeds 21-23] [--set training.learning_rate=0.01]

The folder holds `ihdp_npci_1.csv` to `ihdp_npci_10.csv`: treatment, outcome, the outcome that did not happen, both without noise, and 25
covariates. Prints the root of the precision in estimating heterogeneous effects (PEHE: the root mean square of the estimated less the true
effect, without noise) of each replication, in sample (the infants that trained and validated) and out of sample, beside that of a
regression in each arm, and their mean and standard error. Published, over 1,000 replications (Shalit et al. 2017): a regression in each
arm 2.4 / 2.5, TARNet .88 / .95.
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
COVARIATES = [f"x{k}" for k in range(1, 26)]


def table(source, to):
    """A table with what a study would have, and the true effect of each infant."""
    rows = list(csv.reader(open(source)))
    to.parent.mkdir(parents=True, exist_ok=True)
    with open(to, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["infant", "treated", "y", *COVARIATES])
        writer.writerows([f"infant-{k}", int(float(row[0])), row[1], *row[5:]] for k, row in enumerate(rows))
    return {f"infant-{k}": float(row[4]) - float(row[3]) for k, row in enumerate(rows)}


def least_squares(rows, targets):
    """Coefficients of a regression with an intercept, by its normal equations with a trace of a ridge."""
    rows = [[1.0, *row] for row in rows]
    n = len(rows[0])
    system = [[sum(row[i] * row[j] for row in rows) + (1e-6 if i == j else 0) for j in range(n)] + [sum(row[i] * y for row, y in zip(rows, targets))] for i in range(n)]
    for i in range(n):
        pivot = max(range(i, n), key=lambda k: abs(system[k][i]))
        system[i], system[pivot] = system[pivot], system[i]
        system[i] = [x / system[i][i] for x in system[i]]
        for k in range(n):
            if k != i:
                system[k] = [a - system[k][i] * b for a, b in zip(system[k], system[i])]
    return [row[n] for row in system]


def regressions(data, truth, test):
    """√PEHE in and out of sample of a regression in each arm."""
    rows = {row["infant"]: row for row in csv.DictReader(open(data))}
    covariates = {infant: [float(row[name]) for name in COVARIATES] for infant, row in rows.items()}
    arms = []
    for arm in "01":
        fitted = [infant for infant, row in rows.items() if row["treated"] == arm and infant not in test]
        arms.append(least_squares([covariates[infant] for infant in fitted], [float(rows[infant]["y"]) for infant in fitted]))
    effect = {infant: sum((b - a) * x for a, b, x in zip(*arms, [1.0, *row])) for infant, row in covariates.items()}
    pehe = lambda infants: statistics.mean((effect[infant] - truth[infant]) ** 2 for infant in infants) ** 0.5
    return pehe([infant for infant in rows if infant not in test]), pehe(test)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("--synovia", default="target/release/synovia")
    parser.add_argument("--effects", default="target/release/examples/effects")
    parser.add_argument("--out", type=Path, default=Path("runs/ihdp"))
    parser.add_argument("--seeds", default="21-23", help="of splits and trainings")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--set", action="append", default=[], help="a setting of the pipeline")
    options = parser.parse_args()
    first, last = map(int, options.seeds.split("-"))
    one_thread = os.environ | {"RAYON_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"}

    def replication(job):
        k, seed = job
        data, run = options.out / f"data/{k}.csv", options.out / f"{k}-{seed}"
        truth = table(options.source / f"ihdp_npci_{k}.csv", data)
        (options.out / f"data/{k}.json").write_text(json.dumps(truth))
        settings = [part for setting in [f"records.path={data}", *options.set] for part in ("--set", setting)]
        command = [options.synovia, "--quiet", "evaluate", HERE / "ihdp.toml", "--run", run, "--seed", str(seed), *settings]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=one_thread)
        told = subprocess.run([options.effects, run, options.out / f"data/{k}.json", "score"], check=True, capture_output=True, text=True, env=one_thread)
        line = {"replication": k, "seed": seed, **json.loads(told.stdout)}
        line["regression_in_sample"], line["regression_out_of_sample"] = regressions(data, truth, set(line.pop("test")))
        return line

    jobs = [(k, seed) for k in range(1, 11) for seed in range(first, last + 1)]
    with ThreadPoolExecutor(options.jobs) as pool:
        done = list(pool.map(replication, jobs))
    for line in done:
        print(json.dumps(line))
    for name in ["in_sample", "out_of_sample", "regression_in_sample", "regression_out_of_sample", "average_effect_error"]:
        values = [line[name] for line in done]
        print(f"{name:26} {statistics.mean(values):.3f} ± {statistics.stdev(values) / len(values) ** 0.5:.3f} (median {statistics.median(values):.3f})")


if __name__ == "__main__":
    main()
