"""OASIS-1, five times five-fold: joint against image, record and the baselines, each time in other folds.

    python3 pipelines/studies/oasis.py [--seeds 1-5] [--set images.path=…]

Prints each model's AUROC (the mean over folds), its mean and standard deviation over the seeds, the joint model's difference from each,
and each seed's verdict.
"""

import argparse
import json
import subprocess
from pathlib import Path

from study import spread

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--synovia", default="target/release/synovia")
parser.add_argument("--seeds", default="1-5")
parser.add_argument("--set", action="append", default=[], help="a setting of the pipeline")
parser.add_argument("--out", type=Path, default=Path("runs/oasis-seeds"))
arguments = parser.parse_args()
first, last = map(int, arguments.seeds.split("-"))
pipeline = Path(__file__).resolve().parent.parent / "oasis.toml"
auroc, verdicts = {}, []
for seed in range(first, last + 1):
    run = arguments.out / str(seed)
    settings = [part for setting in arguments.set for part in ("--set", setting)]
    command = [arguments.synovia, "--quiet", "evaluate", pipeline, "--run", run, "--seed", str(seed), *settings]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    task = json.loads((run / "metrics.json").read_text())["tasks"]["dementia"]
    for variant, measured in task["variants"].items():
        auroc.setdefault(variant, {})[seed] = measured["auroc"]["value"]
    verdicts.append(f"seed {seed}: {task['gain']['sentence']}")
for variant, values in auroc.items():
    difference = "" if variant == "joint" else f", joint − it {spread([auroc['joint'][seed] - value for seed, value in values.items()])}"
    print(f"{variant:16} AUROC {spread(list(values.values()))}{difference}")
print("\n".join(verdicts))
