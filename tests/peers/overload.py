"""Ten times the requests that `synovia serve` can answer, for a minute: what is answered, what is refused, and the memory.

  python3 tests/peers/overload.py MODEL.onnx… [--times 10] [--seconds 60]
Needs `cargo build --release --workspace --examples`. A JSON line a model. The load comes from the same cores that serve.
"""
import argparse, json, subprocess
from pathlib import Path

from serving import ROOT, bodies, get, load, serving


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("models", type=Path, nargs="+")
    arguments.add_argument("--times", type=float, default=10)
    arguments.add_argument("--seconds", type=float, default=60)
    arguments = arguments.parse_args()
    for model in arguments.models:
        with serving(model) as (server, folder):
            path = "/v2/models/model/infer"
            _, binary, n = bodies(get(f"http://{server.address}/v2/models/model"), folder)
            load(server, path, binary, 32, 2, n)
            capacity = load(server, path, binary, 32, 5, n)["per_s"]
            overload = [ROOT / "target/release/examples/overload", server.address, path, binary]
            overload += [str(arguments.times * capacity), str(arguments.seconds), str(server.process.pid), str(n)]
            out = subprocess.run(overload, check=True, capture_output=True)
            print(json.dumps({"model": str(model), "capacity_per_s": capacity, **json.loads(out.stdout)}), flush=True)


main()
