"""A SuperLink, a SuperNode for each site, and one run of the app, on this machine alone:

    .flower/venv/bin/python pipelines/federation/run_local.py --sites runs/demo/federation/sites --out runs/flower --rounds 5

Each folder in --sites is a site's run folder: cohort/ and statement.json, as `synovia federate simulate` makes them. With --tls
all talk through TLS and each SuperNode must prove by a key of its own that it was registered. The exit code is that of the run.
"""

import argparse
import contextlib
import datetime
import ipaddress
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

APP = Path(__file__).resolve().parent
BIN = Path(sys.executable).parent


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def certificates(folder):
    """A certificate authority of one hour and the SuperLink's certificate from it."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    def certificate(name, key, issuer, signer, *extensions):
        now = datetime.datetime.now(datetime.timezone.utc)
        made = x509.CertificateBuilder().subject_name(name).issuer_name(issuer).public_key(key.public_key())
        made = made.serial_number(x509.random_serial_number())
        made = made.not_valid_before(now - datetime.timedelta(minutes=5)).not_valid_after(now + datetime.timedelta(hours=1))
        for extension, critical in extensions:
            made = made.add_extension(extension, critical)
        return made.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def named(text):
        return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])

    authority, server = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    known = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    of_authority = x509.BasicConstraints(ca=True, path_length=None)
    identifier = x509.SubjectKeyIdentifier.from_public_key(authority.public_key())
    issued_by = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key())
    pem = certificate(named("authority"), authority, named("authority"), authority, (of_authority, True), (identifier, False))
    (folder / "ca.crt").write_bytes(pem)
    pem = certificate(named("localhost"), server, named("authority"), authority, (known, False), (issued_by, False))
    (folder / "server.crt").write_bytes(pem)
    private = server.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "server.key").write_bytes(private)


def node_key(path):
    """A SuperNode's pair of keys in OpenSSH's format: `path` and `path`.pub."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP384R1())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    path.write_bytes(private)
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    path.with_suffix(".pub").write_bytes(public)


@contextlib.contextmanager
def process(command, environment, log):
    """Runs until the block ends."""
    with open(log, "wb") as out:
        child = subprocess.Popen(command, env=environment, stdout=out, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            yield child
        finally:
            child.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(10)
            # What it started itself, in its own group, goes with it.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()


HELD = """#!/bin/sh
# The program, but for the second training: what comes of that is held back until this is killed.
if [ "$1 $2" = "federate fit" ]; then
    echo >> "{folder}/fits"
    if [ "$(wc -l < "{folder}/fits")" -eq 2 ]; then
        "{binary}" "$@"
        touch "{folder}/held"
        exec sleep 86400
    fi
fi
exec "{binary}" "$@"
"""


def held_back(folder, binary):
    """A program in the place of `binary` that holds its second training back, for `kill_in_round`."""
    folder.mkdir()
    path = folder / "synovia"
    path.write_text(HELD.format(folder=folder, binary=binary))
    path.chmod(0o700)
    return path


def kill_in_round(child, held, out, again, over):
    """Kills a SuperNode that has trained for the second round and not yet sent it; starts it again until the run is over."""
    while not held.exists():
        if over.wait(0.02):
            return
    done = len((out / "rounds.jsonl").read_text().splitlines())
    (out / "killed.json").write_text(json.dumps({"processes": kill_all(child), "rounds_before": done}))
    # The SuperLink takes it for alive until its heartbeat is missed twice, and until then lets no other in by its key.
    while not over.is_set():
        with again() as node:
            while node.poll() is None and not over.wait(0.1):
                pass


def kill_link(child, out):
    """Kills the SuperLink, and the coordinator's app with it, when two rounds are over."""
    losses = out / "losses.jsonl"
    while not losses.is_file() or len(losses.read_text().splitlines()) < 2:
        if child.poll() is not None:
            return
        time.sleep(0.02)
    kill_all(child)
    shutil.copy(losses, out / "losses-before.jsonl")


def kill_all(child):
    """Ends a process and all that it started at once; how many. What it runs is not always in its group."""
    killed = [child.pid, *below(child.pid)]
    for pid in killed:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    child.wait()
    return len(killed)


def below(ancestor):
    """The processes that it started, or that they did."""
    return [int(pid) for pid in os.listdir("/proc") if pid.isdigit() and is_below(int(pid), ancestor)]


def is_below(pid, ancestor):
    """Whether a process was started by another, or by one that was."""
    while pid > 1:
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, IndexError):
            return False
        if pid == ancestor:
            return True
    return False


def wait_until_open(port, child, log, seconds=60):
    until = time.monotonic() + seconds
    while True:
        with socket.socket() as tried:
            if tried.connect_ex(("127.0.0.1", port)) == 0:
                return
        if child.poll() is not None or time.monotonic() > until:
            sys.exit(f"the SuperLink did not start:\n{Path(log).read_text()}")
        time.sleep(0.1)


def main():
    # An end from outside, or for lateness, ends everything that was started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
    signal.signal(signal.SIGALRM, lambda *_: sys.exit(f"not over within {options.within} s; see the logs in {options.out}"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sites", required=True, type=Path, help="folder of the sites' run folders")
    parser.add_argument("--out", required=True, type=Path, help="folder for what comes out")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--synovia", default=os.environ.get("SYNOVIA", "target/release/synovia"), help="the program")
    parser.add_argument("--set", action="append", default=[], help="another of the app's settings, such as method=\"fedprox:0.01\"")
    parser.add_argument("--tls", action="store_true", help="TLS, and SuperNodes that prove who they are")
    parser.add_argument("--sealed", action="store_true", help="sites that give their weights under masks only; the run needs secure=true")
    parser.add_argument("--stranger", action="store_true", help="a SuperNode more, with a key that nobody registered; needs --tls")
    parser.add_argument("--kill", metavar="SITE", help="kill this site's SuperNode, and all that it started, in the second round, and start it again")
    parser.add_argument("--kill-link", action="store_true", help="kill the SuperLink after two rounds, start it again, and run the app once more")
    parser.add_argument("--within", metavar="SECONDS", type=int, default=0, help="give up after this time")
    options = parser.parse_args()
    signal.alarm(options.within)
    sites = sorted(path.parent for path in options.sites.resolve().glob("*/statement.json"))
    if not sites:
        sys.exit(f"{options.sites}: no folder of a site with a statement.json; `synovia federate simulate` makes RUN/federation/sites")
    if options.kill and options.kill not in (site.name for site in sites):
        sys.exit(f"--kill {options.kill}: there is no such site; there are {', '.join(site.name for site in sites)}")
    binary, out = Path(options.synovia).resolve(), options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)

    with tempfile.TemporaryDirectory() as temporary, contextlib.ExitStack() as running:
        folder = Path(temporary)
        environment = {**os.environ, "FLWR_TELEMETRY_ENABLED": "0", "FLWR_HOME": str(folder / "flwr"), "PATH": f"{BIN}:{os.environ['PATH']}"}
        (folder / "flwr").mkdir()
        port = free_port()
        safe_link, safe_node, connection = ["--insecure"], ["--insecure"], "insecure = true"
        if options.tls:
            certificates(folder)
            files = {"ca-certfile": "ca.crt", "certfile": "server.crt", "keyfile": "server.key"}
            safe_link = [part for what, name in files.items() for part in (f"--ssl-{what}", str(folder / name))]
            safe_link.append("--enable-supernode-auth")
            safe_node = ["--root-certificates", str(folder / "ca.crt")]
            connection = f'root-certificates = "{folder / "ca.crt"}"'
        config = f'[superlink]\ndefault = "here"\n\n[superlink.here]\naddress = "127.0.0.1:{port}"\n{connection}\n'
        (folder / "flwr/config.toml").write_text(config)

        link = [str(BIN / "flower-superlink"), "--host", "127.0.0.1", "--port", str(port), *safe_link]
        link.append("--disable-runtime-dependency-installation")
        if options.kill_link:
            # Whom it knows, it knows after a restart.
            link += ["--database", str(folder / "superlink.db")]

        def start_link(log):
            child = running.enter_context(process(link, environment, log))
            wait_until_open(port, child, log)
            return child

        superlink = start_link(out / "superlink.log")
        over = threading.Event()
        for site in sites:
            keys = []
            if options.tls:
                node_key(folder / site.name)
                keys = ["--auth-supernode-private-key", str(folder / site.name)]
                register = [str(BIN / "flwr"), "supernode", "register", str(folder / f"{site.name}.pub"), "here"]
                subprocess.run(register, env=environment, check=True, stdout=subprocess.DEVNULL)
            program = held_back(folder / "killed", binary) if site.name == options.kill else binary
            here = f'site="{site.name}" run="{site}" statement="{site / "statement.json"}" synovia="{program}"'
            here += ' secure="true"' if options.sealed else ""
            node = [str(BIN / "flower-supernode"), "--superlink", f"127.0.0.1:{port}", "--port", str(free_port())]
            node += ["--node-config", here, *safe_node, *keys]
            child = running.enter_context(process(node, environment, out / f"{site.name}.log"))
            if site.name == options.kill:
                again = lambda node=node, name=site.name: process(node, environment, out / f"{name}-again.log")
                killing = threading.Thread(target=kill_in_round, args=(child, folder / "killed/held", out, again, over), daemon=True)
        if options.stranger:
            node_key(folder / "stranger")
            node = [str(BIN / "flower-supernode"), "--superlink", f"127.0.0.1:{port}", "--port", str(free_port()), *safe_node]
            node += ["--auth-supernode-private-key", str(folder / "stranger"), "--node-config", f'site="{sites[0].name}"']
            running.enter_context(process(node, environment, out / "stranger.log"))

        if options.kill:
            killing.start()
            # What is called last is called first: the thread ends, with the SuperNode that it started, before the others do.
            running.callback(killing.join)
            running.callback(over.set)
        settings = [f'out="{out}"', f"sites={len(sites)}", f"rounds={options.rounds}", f'synovia="{binary}"', *options.set]
        run = [str(BIN / "flwr"), "run", str(APP), "here", "--stream", "--run-config", " ".join(settings)]
        (out / "result.json").unlink(missing_ok=True)
        if options.kill_link:
            (out / "losses.jsonl").unlink(missing_ok=True)
            threading.Thread(target=kill_link, args=(superlink, out), daemon=True).start()
            with open(out / "run-killed.log", "wb") as log:
                done = subprocess.run(run, env=environment, check=False, stdout=log, stderr=subprocess.STDOUT)
            superlink.wait()
            if (out / "result.json").is_file():
                sys.exit("the run came to its end before its SuperLink was killed")
            print(f"the SuperLink was killed; `flwr run` ended with {done.returncode}")
            start_link(out / "superlink-again.log")
        with open(out / "run.log", "wb") as log:
            subprocess.run(run, env=environment, check=False, stdout=log, stderr=subprocess.STDOUT)
        if not (out / "result.json").is_file():
            sys.exit(f"the run did not come to its end; see the logs in {out}")
        print((out / "result.json").read_text())


if __name__ == "__main__":
    main()
