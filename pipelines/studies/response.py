"""What a choice of treatment by estimated effects is worth, on simulated cohorts where the chance of a good outcome under either treatment
is known, and how well the time to deterioration is told.

    cargo build --release --workspace --examples && python3 pipelines/studies/response.py [--seeds 8501-8505]

Each seed is a cohort. The worse patients are, the more often they got the second treatment, so that plain comparisons mislead. A line of
JSON a cohort goes to runs/response/response.jsonl; those that are there already are not made again. Prints, for each model, the mean chance
of a good outcome if its choice were followed, its share of that of the best choice, and √PEHE; and the concordance of survival.
"""

import json
import shutil
import subprocess
from statistics import mean

from study import ONE_THREAD, Study, spread

study = Study("response", __doc__, "8501-8505", 8000, examples=["policy"])


def measure(keys):
    for key in keys:
        at = study.cohort(key["seed"], "")
        study.evaluate(at, key["seed"])
        told = subprocess.run([study.example("policy"), at / "run", at / "data", "response"], check=True, capture_output=True, text=True, env=ONE_THREAD)
        endpoints = json.loads((at / "run/metrics.json").read_text())["endpoints"]
        measured = {name: {variant: {m: e["value"] for m, e in of.items()} for variant, of in endpoint["variants"].items()} for name, endpoint in endpoints.items()}
        gains = {name: endpoint["gain"] for name, endpoint in endpoints.items()}
        yield key, {"policy": json.loads(told.stdout), "measured": measured, "gains": gains}
        shutil.rmtree(at)


done = study.lines([[{"seed": seed}] for seed in study.seeds], measure)
if done:
    for variant in done[0]["policy"]:
        of = [line["policy"][variant] for line in done]
        share = spread([one["model"] / one["oracle"] for one in of])
        print(f"{variant:14} value {spread([one['model'] for one in of])}, of the best {share}, √PEHE {spread([one['pehe'] for one in of])}")
    of = [line["policy"]["joint"] for line in done]
    for name in ("oracle", "as_given", "first", "second"):
        print(f"{name:14} value {spread([one[name] for one in of])}, of the best {spread([one[name] / one['oracle'] for one in of])}")
    for variant in done[0]["measured"]["deterioration"]:
        of = [line["measured"]["deterioration"][variant] for line in done]
        print(f"deterioration: {variant:14} concordance {spread([one['concordance'] for one in of])}, integrated Brier {spread([one['integrated_brier'] for one in of])}")
    for name in ("response", "deterioration"):
        print(name, [line["gains"][name]["verdict"] for line in done])
