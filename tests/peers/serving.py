"""Requests per second of `synovia serve` and of a FastAPI server with onnxruntime, in turn, on the same model and this machine.

  python tests/peers/serving.py PEERS/serve_fastapi.py MODEL.onnx… [--clients 32] [--seconds 5] [--rounds 3]
Python needs what the peer asks for. Needs `cargo build --release --workspace --examples`. A JSON line a measurement, then for each
model the medians of the rounds. The load comes from the same cores that serve.
"""
import argparse, contextlib, json, os, random, shutil, signal, socket, statistics, struct, subprocess, sys, tempfile, time, urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def get(url):
    with urllib.request.urlopen(url, timeout=5) as answer:
        return json.load(answer)


def wait_for(url, process):
    for _ in range(600):
        if process.poll() is not None:
            raise SystemExit(f"{process.args[0]} ended with {process.returncode}")
        try:
            return get(url)
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"nothing answers at {url}")


def resident_mb(pid):
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.split("VmRSS:")[1].split()[0]) / 1024


class Server:
    def __init__(self, command, port, environment=None):
        self.address = f"127.0.0.1:{port}"
        self.process = subprocess.Popen(command, env={**os.environ, **(environment or {})}, stdout=subprocess.DEVNULL)
        wait_for(f"http://{self.address}/v2/health/ready", self.process)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=60)


@contextlib.contextmanager
def serving(model):
    """`synovia serve` on one model by the name of `model`, and a folder to work in."""
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        (folder / "models").mkdir()
        shutil.copy(model, folder / "models/model.onnx")
        with Server(*of_synovia(folder)) as server:
            yield server, folder


def of_synovia(folder):
    port = free_port()
    return [ROOT / "target/release/synovia", "serve", "--quiet", "--models", folder / "models", "--address", f"127.0.0.1:{port}"], port


def load(server, path, body, clients, seconds, json_length=None):
    command = [ROOT / "target/release/examples/load", server.address, path, body, str(clients), str(seconds)]
    out = subprocess.run(command + ([str(json_length)] if json_length else []), check=True, capture_output=True)
    return json.loads(out.stdout)


def bodies(metadata, folder):
    """One example as JSON and with binary tensors: paths, and the length of the latter's JSON."""
    rng = random.Random(7)
    as_json, header, tensors = [], [], b""
    for tensor in metadata["inputs"]:
        shape = [1] + tensor["shape"][1:]
        n = 1
        for size in shape:
            n *= size
        values = [1.0] * n if tensor["name"].endswith("_present") else [round(rng.random(), 4) for _ in range(n)]
        described = {"name": tensor["name"], "datatype": "FP32", "shape": shape}
        as_json.append({**described, "data": values})
        header.append({**described, "parameters": {"binary_data_size": 4 * n}})
        tensors += struct.pack(f"<{n}f", *values)
    first = json.dumps({"inputs": header, "parameters": {"binary_data_output": True}}).encode()
    (folder / "json").write_text(json.dumps({"inputs": as_json}))
    (folder / "binary").write_bytes(first + tensors)
    return folder / "json", folder / "binary", len(first)


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("peer", type=Path)
    arguments.add_argument("models", type=Path, nargs="+")
    arguments.add_argument("--clients", type=int, default=32)
    arguments.add_argument("--seconds", type=float, default=5)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments = arguments.parse_args()
    for model in arguments.models:
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            (folder / "models").mkdir()
            shutil.copy(model, folder / "models/model.onnx")
            measured = {}

            def note(name, line):
                measured.setdefault(name, []).append(line)
                print(json.dumps({"model": str(model), "server": name, **line}), flush=True)

            path = "/v2/models/model/infer"
            for _ in range(arguments.rounds):
                with Server(*of_synovia(folder)) as ours:
                    idle = resident_mb(ours.process.pid)
                    as_json, binary, n = bodies(get(f"http://{ours.address}/v2/models/model"), folder)
                    load(ours, path, as_json, arguments.clients, 1)
                    line = load(ours, path, as_json, arguments.clients, arguments.seconds)
                    note("synovia, JSON", {**line, "idle_mb": idle, "busy_mb": resident_mb(ours.process.pid)})
                    note("synovia, binary", load(ours, path, binary, arguments.clients, arguments.seconds, n))
                port = free_port()
                app = ["--app-dir", arguments.peer.parent, f"{arguments.peer.stem}:app"]
                command = [sys.executable, "-m", "uvicorn", *app, "--port", str(port), "--workers", "1", "--log-level", "warning"]
                with Server(command, port, {"MODEL": str(folder / "models/model.onnx")}) as peer:
                    idle = resident_mb(peer.process.pid)
                    load(peer, path, as_json, arguments.clients, 1)
                    line = load(peer, path, as_json, arguments.clients, arguments.seconds)
                    note("peer, JSON", {**line, "idle_mb": idle, "busy_mb": resident_mb(peer.process.pid)})
                loop = subprocess.run([sys.executable, arguments.peer, folder / "models/model.onnx"], check=True, capture_output=True)
                for line in map(json.loads, loop.stdout.splitlines()):
                    note(f"raw loop, batch {line['batch']}", {"per_s": line["examples_per_s"]})
            of = lambda name, key: statistics.median(line[key] for line in measured[name])
            rows = {name: {key: round(of(name, key), 2) for key in lines[0] if key in ("per_s", "p50_ms", "p99_ms", "idle_mb", "busy_mb")} for name, lines in measured.items()}
            print(json.dumps({"model": str(model), "medians": rows}), flush=True)


if __name__ == "__main__":
    main()
