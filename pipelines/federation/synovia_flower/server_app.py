"""The coordinator: asks all sites what they have, agrees on a plan, and goes through its rounds."""

import contextlib
import json
import os
import shutil
import tempfile
import time
from logging import INFO, WARNING
from pathlib import Path

from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.common import log
from flwr.serverapp import Grid, ServerApp, strategy as flower

from synovia_flower import program, sealed

app = ServerApp()

# Files at the coordinator: a line about each round, and the validation loss after it.
ROUNDS, LOSSES = "rounds.jsonl", "losses.jsonl"
OWN = ["FedAvg", "FedProx", "FedAvgM", "FedMedian", "FedTrimmedAvg", "FedAdam", "FedYogi", "FedAdagrad", "Krum"]


class Prompt:
    """A grid that looks for answers often at first: Flower's looks every three seconds, which is longer than a small round."""

    def __init__(self, grid):
        self.grid = grid

    def __getattr__(self, name):
        return getattr(self.grid, name)

    def send_and_receive(self, messages, *, timeout=None):
        begun = time.monotonic()
        asked, replies = set(self.grid.push_messages(messages)), []
        while asked:
            came = list(self.grid.pull_messages(asked))
            replies += came
            asked -= {reply.metadata.reply_to_message_id for reply in came}
            passed = time.monotonic() - begun
            if timeout is not None and passed >= timeout:
                break
            if asked:
                time.sleep(min(3.0, max(0.2, passed / 20)))
        return replies


class BySite(flower.FedAvg):
    """Each number's mean by the examples that trained it: `synovia federate aggregate`, which refuses updates that must not count.

    A site that failed or did not answer is absent from its round. `begun` rounds were made by a run before this one.
    """

    def __init__(self, binary, out, layout, begun, adaptive, **settings):
        super().__init__(**settings)
        self.binary, self.out, self.layout, self.begun, self.adaptive = binary, out, layout, begun, adaptive

    def configure_train(self, server_round, arrays, config, grid):
        config["layout"] = json.dumps(self.layout)
        return super().configure_train(server_round + self.begun, arrays, config, grid)

    def configure_evaluate(self, server_round, arrays, config, grid):
        config["layout"] = json.dumps(self.layout)
        return super().configure_evaluate(server_round + self.begun, arrays, config, grid)

    def aggregate_train(self, server_round, replies):
        server_round += self.begun
        report = self.merge(server_round, replies)
        note(self.out / ROUNDS, report)
        arrays, self.layout, _ = program.read(weights_path(self.out, server_round))
        return arrays, MetricRecord({"sites": len(report["sites"])})

    def merge(self, server_round, replies):
        """Writes what all share after the round; what happened in it."""
        valid, _ = self._check_and_log_replies(replies, is_train=True, validate=False)
        with tempfile.TemporaryDirectory() as folder:
            updates = []
            for message in valid:
                path = Path(folder) / f"node-{message.metadata.src_node_id}.safetensors"
                how = message.content["how"]
                program.write(path, message.content["arrays"], json.loads(how["layout"]), json.loads(how["header"]))
                updates.append(path)
            if not updates:
                raise program.ProgramError(f"round {server_round}: no site answered")
            files = ["--plan", self.out / "plan.json", "--weights", weights_path(self.out, server_round - 1)]
            files += ["--out", weights_path(self.out, server_round), *self.moments(server_round)]
            report = json.loads(program.run(self.binary, "federate", "aggregate", *files, *updates))
        for refusal in report["refused"]:
            log(WARNING, "round %s: %s", server_round, refusal["reason"])
        log(INFO, "round %s: weights %s, absent: %s", server_round, report["hash"][:16], ", ".join(report["absent"]) or "nobody")
        return report

    def moments(self, server_round):
        """What FedAdam remembers. That of the round before stays, for a round that is lost here and done again."""
        if not self.adaptive:
            return []
        old, new = (self.out / f"moments-{done:05}.safetensors" for done in (server_round - 1, server_round))
        if old.exists():
            shutil.copy(old, new)
        return ["--moments", new]

    def aggregate_evaluate(self, server_round, replies):
        measured = super().aggregate_evaluate(server_round, replies)
        if measured is not None:
            note(self.out / LOSSES, {"round": server_round + self.begun, "loss": float(measured["validation-loss"])})
        return measured


class Secure(BySite):
    """The same mean, of sums that come through `sealed.Sums`."""

    def __init__(self, most, sites, **settings):
        super().__init__(**settings)
        self.most, self.sites = most, sites

    def configure_train(self, server_round, arrays, config, grid):
        config[sealed.MOST] = self.most
        return super().configure_train(server_round, arrays, config, grid)

    def merge(self, server_round, replies):
        [(names, moved, counts, beside)] = replies
        shared, header = program.tensors(weights_path(self.out, server_round - 1))
        after = sealed.merged(shared, names, moved, counts, len(beside), self.most)
        program.save(weights_path(self.out, server_round), after, {**header, "round": server_round})
        here = {of_site["site"] for of_site in beside}
        absent = sorted(set(self.sites) - here)
        log(INFO, "round %s: the sum of %s sites, absent: %s", server_round, len(here), ", ".join(absent) or "nobody")
        sites = [{key: of_site[key] for key in ("site", "epsilon") if key in of_site} for of_site in beside]
        return {"round": server_round, "sites": sorted(sites, key=lambda site: site["site"]), "absent": absent, "secure": True}


def weights_path(out, server_round):
    return out / f"round-{server_round:05}.safetensors"


def note(path, line):
    """Adds a line about a round."""
    with open(path, "a") as file:
        file.write(json.dumps(line) + "\n")


def lines(path):
    """The whole lines of a file, by round; a run that was killed may have left half of one."""
    found = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        with contextlib.suppress(ValueError):
            found[json.loads(line)["round"]] = line
    return found


def whole_rounds(out, digest):
    """How many rounds of this plan a run before this one has made to the end: weights, a line about each, and a loss."""
    if (out / "result.json").exists():
        return 0
    made, measured = lines(out / ROUNDS), lines(out / LOSSES)
    done = 0
    while (done + 1) in made and (done + 1) in measured and is_of(weights_path(out, done + 1), digest, done + 1):
        done += 1
    return done if is_of(weights_path(out, 0), digest, 0) else 0


def is_of(path, digest, server_round):
    try:
        header = program.tensors(path)[1]
    except Exception:  # Half a file has many faults.
        return False
    return header == {"plan": digest, "round": server_round}


def keep_rounds(out, done):
    """Removes what is of later rounds, or of another run: it would be taken for this one's."""
    for path in [*out.glob("round-*.safetensors"), *out.glob("moments-*.safetensors")]:
        if int(path.stem.rpartition("-")[2]) > done or done == 0:
            path.unlink()
    for name in (ROUNDS, LOSSES):
        kept = [line for of, line in sorted(lines(out / name).items()) if of <= done]
        (out / name).write_text("".join(line + "\n" for line in kept))
    (out / "result.json").unlink(missing_ok=True)


def wait_for(grid, count, timeout):
    """The nodes, when enough of them are there."""
    until = time.monotonic() + timeout
    while len(nodes := sorted(grid.get_node_ids())) < count:
        if time.monotonic() > until:
            raise program.ProgramError(f"{len(nodes)} of {count} sites came in {timeout} s")
        time.sleep(0.2)
    return nodes


def agree(grid, config, binary, out):
    """The plan, its digest, and the most training examples that a site has."""
    nodes = wait_for(grid, int(config["sites"]), int(config["timeout"]))
    asked = [Message(RecordDict(), dst_node_id=node, message_type="query") for node in nodes]
    replies = list(grid.send_and_receive(asked, timeout=int(config["timeout"])))
    for left in out.glob("statement-*.json"):
        left.unlink()
    statements, most = [], 1
    for number, reply in enumerate(replies):
        if reply.has_error():
            raise program.ProgramError(f"node {reply.metadata.src_node_id} states nothing: {reply.error.reason}")
        path = out / f"statement-{number}.json"
        path.write_text(reply.content["state"]["statement"])
        most = max(most, json.loads(path.read_text())["n_train"])
        statements.append(path)
    arguments = ["--rounds", config["rounds"], "--local-epochs", config["local-epochs"], "--method", config["method"]]
    arguments += ["--least-examples", config["least-examples"], "--least-sites", config["least-sites"]]
    for what in str(config["keep"]).split():
        arguments += ["--keep", what]
    agreed = json.loads(program.run(binary, "federate", "agree", *statements, *arguments, "--out", out))
    log(INFO, "plan %s of %s", agreed["plan"][:16], ", ".join(agreed["sites"]))
    return (out / "plan.json").read_text(), agreed["plan"], most


def private(strategy, dp, config, plan):
    """Flower's modifiers around a strategy: sites' updates are clipped, here or at the sites, and their mean has noise."""
    wrappers = {"server": flower.DifferentialPrivacyServerSideFixedClipping, "client": flower.DifferentialPrivacyClientSideFixedClipping}
    if dp not in wrappers:
        raise program.ProgramError(f"dp is {dp!r}; it is \"\", \"server\" or \"client\"")
    if plan["training"]["ema"] > 0.0 or plan["model"]["norm"] != "group":
        raise program.ProgramError("noise would spoil moving averages and running statistics; set training.ema = 0 and model.norm = \"group\"")
    return wrappers[dp](strategy, float(config["noise"]), float(config["clip"]), int(config["sites"]))


def check_secure(name, config):
    if name != "synovia" or not str(config["method"]).startswith(("fedavg", "fedprox")):
        raise program.ProgramError("secure aggregation makes the mean by examples: it goes with strategy=\"synovia\" and method fedavg or fedprox")
    if not sealed.LEAST_SITES <= int(config["sites"]) <= sealed.MOST_SITES:
        raise program.ProgramError(f"secure aggregation is for {sealed.LEAST_SITES} to {sealed.MOST_SITES} sites")


@app.main()
def main(grid: Grid, context: Context) -> None:
    config = context.run_config
    out = Path(str(config["out"]))
    out.mkdir(parents=True, exist_ok=True)
    binary = str(config["synovia"])
    grid = Prompt(grid)
    plan, digest, most = agree(grid, config, binary, out)
    name, secure = str(config["strategy"]), bool(config["secure"])
    # Flower's own strategies keep what they know to themselves, and it is gone with them.
    begun = whole_rounds(out, digest) if name == "synovia" else 0
    keep_rounds(out, begun)
    os.replace(out / "weights.safetensors", weights_path(out, 0))
    if begun > 0:
        log(INFO, "going on after round %s", begun)
    dp = str(config["dp"])
    arrays, layout, _ = program.read(weights_path(out, begun), apart=bool(dp))
    # A round goes on with those who are there: a site may be away.
    settings = {"min_train_nodes": 1, "min_evaluate_nodes": 1, "min_available_nodes": 1}
    if dp and name not in OWN:
        raise program.ProgramError(f"dp is put around one of Flower's own strategies: {', '.join(OWN)}")
    own = {"binary": binary, "out": out, "layout": layout, "begun": begun, "adaptive": str(config["method"]).startswith("fedadam")}
    if secure:
        check_secure(name, config)
        strategy = Secure(most, json.loads(plan)["sites"], **own, **settings)
        grid = sealed.Sums(grid, context, float(config["timeout"]))
    elif name == "synovia":
        strategy = BySite(**own, **settings)
    elif name in OWN:
        if not str(config["method"]).startswith(("fedavg", "fedprox")):
            raise program.ProgramError(f"{name} is a method of its own; leave `method` at fedavg or fedprox, or take strategy=\"synovia\"")
        if str(config["keep"]).split():
            raise program.ProgramError(f"{name} puts whole models together; leave `keep` empty, or take strategy=\"synovia\"")
        more = {"proximal_mu": 0.0} if name == "FedProx" else {}
        strategy = getattr(flower, name)(**settings, **more)
        if dp:
            strategy = private(strategy, dp, config, json.loads(plan))
    else:
        raise program.ProgramError(f"no strategy {name}; there are: synovia, {', '.join(OWN)}")

    def keep(server_round, arrays):
        """After each round: its weights, where no one wrote them yet."""
        path = weights_path(out, server_round + begun)
        if not path.exists():
            program.write(path, arrays, layout, {"plan": digest, "round": server_round + begun})

    shared = {"plan": plan, "digest": digest, "layout": json.dumps(layout)}
    result = strategy.start(
        grid=grid,
        initial_arrays=arrays,
        num_rounds=int(config["rounds"]) - begun,
        timeout=float(config["timeout"]),
        train_config=ConfigRecord(shared),
        evaluate_config=ConfigRecord(shared),
        evaluate_fn=keep,
    )
    losses = {of: json.loads(line)["loss"] for of, line in lines(out / LOSSES).items()}
    for server_round, metrics in result.evaluate_metrics_clientapp.items():
        losses[server_round + begun] = float(metrics["validation-loss"])
    best = min(losses, key=losses.get) if losses else int(config["rounds"])
    (out / "best.safetensors").write_bytes(weights_path(out, best).read_bytes())
    (out / "result.json").write_text(json.dumps({"plan": digest, "sites": int(config["sites"]), "validation_losses": losses, "best_round": best}))
    log(INFO, "best round %s of %s; %s", best, config["rounds"], out / "best.safetensors")
