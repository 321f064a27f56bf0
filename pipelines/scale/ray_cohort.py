"""A cohort by shards on Ray: python pipelines/scale/ray_cohort.py PIPELINE.toml --run RUN --shards 8 [--set KEY=VALUE ...]

The run folder must be on storage that every node sees at the same path, and `synovia` on every node. The records are ingested
once; features and pixels are made by shards, wherever Ray puts them; the merge writes the same bytes as one machine.
"""

import argparse
import subprocess

import ray


def synovia(binary, *arguments):
    """Runs the program; its errors are said as they are."""
    done = subprocess.run([binary, *arguments, "--quiet"], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"synovia {' '.join(arguments)}: {done.stderr.strip()}")


@ray.remote(num_cpus=1, max_retries=3)
def shard(binary, arguments, index, count):
    """One part of the cohort. A part that was made already is skipped, so that a retry costs nothing."""
    synovia(binary, "cohort", *arguments, "--shard", f"{index}/{count}", "--threads", "1")
    return index


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pipeline")
    parser.add_argument("--run", required=True)
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--synovia", default="synovia", help="the program, as every node finds it")
    parser.add_argument("--address", help="of the cluster; without one, a Ray of this machine alone")
    options = parser.parse_args()
    arguments = [options.pipeline, "--run", options.run]
    for setting in options.set:
        arguments += ["--set", setting]

    synovia(options.synovia, "ingest", *arguments)
    ray.init(address=options.address, include_dashboard=False, logging_level="error")
    waiting = [shard.remote(options.synovia, arguments, index, options.shards) for index in range(options.shards)]
    while waiting:
        done, waiting = ray.wait(waiting)
        print(f"shard {ray.get(done[0])} of {options.shards} is done", flush=True)
    synovia(options.synovia, "merge", *arguments)


if __name__ == "__main__":
    main()
