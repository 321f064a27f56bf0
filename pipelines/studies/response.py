"""What a choice of treatment by estimated effects is worth, on simulated cohorts where the chance of a good outcome under either treatment
is known, and how well the time to deterioration is told.

    cargo build --release --workspace --examples && python3 pipelines/studies/response.py [--seeds 8501-8505]

Each seed is a cohort. The worse patients are, the more often they got the second treatment, so that plain comparisons mislead. Models are
trained on the response and the time to deterioration alone, and with diagnosis and stage beside them. A line of JSON a cohort and set of
tasks goes to runs/response/response.jsonl; those that are there already are not made again. Prints, for each model, the mean chance of a
good outcome if its choice were followed, its share of that of the best choice, and √PEHE; and the concordance of survival.
"""

import json
import shutil
import subprocess
import tomllib

from study import ONE_THREAD, Study, inline, spread

study = Study("response", __doc__, "8501-8505", 8000, examples=["policy"])
TABLES = tomllib.loads(study.arguments.toml.read_text())["task"]
ALONE = [table for table in TABLES if table["kind"] in ("treatment", "survival")]
SETTINGS = {"alone": [f"task={inline(ALONE)}"], "with diagnosis and stage": []}


def measure(keys):
    seed = keys[0]["seed"]
    at = study.cohort(seed, "")
    for key in keys:
        study.evaluate(at, seed, *SETTINGS[key["tasks"]])
        told = subprocess.run([study.example("policy"), at / "run", at / "data", "response"], check=True, capture_output=True, text=True, env=ONE_THREAD)
        endpoints = json.loads((at / "run/metrics.json").read_text())["endpoints"]
        measured = {name: {variant: {m: e["value"] for m, e in of.items()} for variant, of in endpoint["variants"].items()} for name, endpoint in endpoints.items()}
        gains = {name: endpoint["gain"] for name, endpoint in endpoints.items()}
        yield key, {"policy": json.loads(told.stdout), "measured": measured, "gains": gains}
    shutil.rmtree(at)


done = study.lines([[{"seed": seed, "tasks": name} for name in SETTINGS] for seed in study.seeds], measure)
for name in SETTINGS:
    lines = [line for line in done if line["tasks"] == name]
    if not lines:
        continue
    print(f"{name}: {len(lines)} cohorts of {lines[0]['policy']['joint']['n']} test examples")
    for variant in lines[0]["policy"]:
        of = [line["policy"][variant] for line in lines]
        share = spread([one["model"] / one["oracle"] for one in of])
        print(f"  {variant:14} value {spread([one['model'] for one in of])}, of the best {share}, √PEHE {spread([one['pehe'] for one in of])}")
    of = [line["policy"]["joint"] for line in lines]
    for other in ("oracle", "as_given", "first", "second"):
        print(f"  {other:14} value {spread([one[other] for one in of])}, of the best {spread([one[other] / one['oracle'] for one in of])}")
    for variant in lines[0]["measured"]["deterioration"]:
        of = [line["measured"]["deterioration"][variant] for line in lines]
        print(f"  deterioration: {variant:14} concordance {spread([one['concordance'] for one in of])}, integrated Brier {spread([one['integrated_brier'] for one in of])}")
    for endpoint in ("response", "deterioration"):
        print(f"  {endpoint}: {', '.join(line['gains'][endpoint]['verdict'] for line in lines)}")
