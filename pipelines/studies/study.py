"""What studies over simulated cohorts share: a cohort a seed, lines that are kept between runs, numbers with their spread."""

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

# A small model's training keeps one core busy: the others train on other cohorts.
ONE_THREAD = os.environ | {"RAYON_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"}
HERE = Path(__file__).resolve().parent


class Study:
    """Of the module whose documentation is `doc`, by the pipeline `NAME.toml` beside it, or another one."""

    def __init__(self, name, doc, seeds, patients, examples=(), toml=None):
        parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
        parser.add_argument("--synovia", default="target/release/synovia")
        parser.add_argument("--seeds", default=seeds)
        parser.add_argument("--patients", type=int, default=patients)
        parser.add_argument("--toml", type=Path, default=toml or HERE / f"{name}.toml")
        parser.add_argument("--set", action="append", default=[], help="a setting of the pipeline")
        parser.add_argument("--jobs", type=int, default=os.cpu_count())
        parser.add_argument("--out", type=Path, default=Path(f"runs/{name}"))
        self.arguments = parser.parse_args()
        first, last = map(int, self.arguments.seeds.split("-"))
        self.seeds = range(first, last + 1)
        self.log = self.arguments.out / f"{name}.jsonl"
        # Lines of other settings or other programs say nothing of these.
        settings = self.arguments.toml.read_bytes() + json.dumps(self.arguments.set).encode() + Path(sys.argv[0]).read_bytes()
        programs = b"".join(Path(path).read_bytes() for path in [self.arguments.synovia, *(self.example(name) for name in examples)])
        program, settings = (hashlib.sha256(part).hexdigest()[:12] for part in (programs, settings))
        self.of = f"program {program}, {self.arguments.patients} patients, {settings}"

    def example(self, name):
        """A program that is built beside `synovia`."""
        return Path(self.arguments.synovia).parent / "examples" / name

    def synovia(self, *command):
        command = [self.arguments.synovia, "--quiet", *map(str, command)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=ONE_THREAD)

    def cohort(self, seed, tag, *options):
        """A folder with `data`, a cohort of this seed; it is to be removed when it has served."""
        at = self.arguments.out / f"{seed}{tag}"
        shutil.rmtree(at, ignore_errors=True)
        self.synovia("simulate", "--out", at / "data", "--patients", self.arguments.patients, "--seed", seed, *options)
        return at

    def evaluate(self, at, seed, *settings, run=None):
        """What `metrics.json` has of the tasks after a run in `at/run`, or in `run`."""
        run = run or at / "run"
        settings = [f"images.path={at}/data/dicom", f"records.path={at}/data/fhir", *self.arguments.set, *settings]
        self.synovia("evaluate", self.arguments.toml, "--run", run, "--seed", seed, *(part for s in settings for part in ("--set", s)))
        return json.loads((run / "metrics.json").read_text())["tasks"]

    def lines(self, jobs, make):
        """A dictionary for each key of all jobs. `jobs` is a list of lists of keys, each a dictionary with a `seed`; `make` is given those
        of a job that are not in the log already, and yields a key with what was measured."""
        self.arguments.out.mkdir(parents=True, exist_ok=True)
        kept = [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []
        kept = [line for line in kept if line["of"] == self.of]
        asked = [key for job in jobs for key in job]
        done = [line for line in kept if any(key.items() <= line.items() for key in asked)]
        missing = [[key for key in job if not any(key.items() <= line.items() for line in done)] for job in jobs]

        def work(job):
            for key, measured in make(job):
                line = {**key, "of": self.of, **measured}
                # One write a line, so that lines of several threads do not mix.
                with open(self.log, "a") as file:
                    file.write(json.dumps(line) + "\n")
                done.append(line)

        with ThreadPoolExecutor(self.arguments.jobs) as pool:
            failed = [str(worked.exception()) for worked in as_completed([pool.submit(work, job) for job in missing if job]) if worked.exception()]
        if failed:
            # A table of the others would be of unequal seeds.
            sys.exit("\n".join([*failed, f"{len(failed)} jobs failed; what was measured is in {self.log}, and is not made again"]))
        return done


def inline(value):
    """A value as TOML has it in one line."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {inline(of)}" for key, of in value.items()) + " }"
    return "[" + ", ".join(map(inline, value)) + "]" if isinstance(value, list) else json.dumps(value)


def spread(values):
    """Mean and standard deviation."""
    return f"{statistics.mean(values):.4f} ± {statistics.stdev(values):.4f}" if len(values) > 1 else f"{values[0]:.4f}"
