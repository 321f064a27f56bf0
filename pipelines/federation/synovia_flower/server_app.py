"""The coordinator: asks all sites what they have, agrees on a plan, and goes through its rounds."""

import json
import os
import tempfile
import time
from logging import INFO, WARNING
from pathlib import Path

from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.common import log
from flwr.serverapp import Grid, ServerApp, strategy as flower

from synovia_flower import program

app = ServerApp()

OWN = ["FedAvg", "FedProx", "FedAvgM", "FedMedian", "FedTrimmedAvg", "FedAdam", "FedYogi", "FedAdagrad", "Krum"]


class BySite(flower.FedAvg):
    """Each number's mean by the examples that trained it: `synovia federate aggregate`, which refuses updates that must not count.

    A site that failed or did not answer is absent from its round.
    """

    def __init__(self, binary, out, layout, **settings):
        super().__init__(**settings)
        self.binary, self.out, self.layout = binary, out, layout

    def configure_train(self, server_round, arrays, config, grid):
        config["layout"] = json.dumps(self.layout)
        return super().configure_train(server_round, arrays, config, grid)

    def configure_evaluate(self, server_round, arrays, config, grid):
        config["layout"] = json.dumps(self.layout)
        return super().configure_evaluate(server_round, arrays, config, grid)

    def aggregate_train(self, server_round, replies):
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
            files += ["--out", weights_path(self.out, server_round), "--moments", self.out / "moments.safetensors"]
            report = json.loads(program.run(self.binary, "federate", "aggregate", *files, *updates))
        for refusal in report["refused"]:
            log(WARNING, "round %s: %s", server_round, refusal["reason"])
        log(INFO, "round %s: weights %s, absent: %s", server_round, report["hash"][:16], ", ".join(report["absent"]) or "nobody")
        note(self.out, report)
        arrays, self.layout, _ = program.read(weights_path(self.out, server_round))
        return arrays, MetricRecord({"bytes": report["bytes"], "sites": len(report["sites"])})


def weights_path(out, server_round):
    return out / f"round-{server_round:05}.safetensors"


def note(out, line):
    """Adds a line about a round."""
    with open(out / "rounds.jsonl", "a") as file:
        file.write(json.dumps(line) + "\n")


def wait_for(grid, count, timeout):
    """The nodes, when enough of them are there."""
    until = time.monotonic() + timeout
    while len(nodes := sorted(grid.get_node_ids())) < count:
        if time.monotonic() > until:
            raise program.ProgramError(f"{len(nodes)} of {count} sites came in {timeout} s")
        time.sleep(0.2)
    return nodes


def agree(grid, config, binary, out):
    """The plan, its digest and the first weights."""
    nodes = wait_for(grid, int(config["sites"]), int(config["timeout"]))
    asked = [Message(RecordDict(), dst_node_id=node, message_type="query") for node in nodes]
    replies = list(grid.send_and_receive(asked, timeout=int(config["timeout"])))
    statements = []
    for number, reply in enumerate(replies):
        if reply.has_error():
            raise program.ProgramError(f"node {reply.metadata.src_node_id} states nothing: {reply.error.reason}")
        path = out / f"statement-{number}.json"
        path.write_text(reply.content["state"]["statement"])
        statements.append(path)
    arguments = ["--rounds", config["rounds"], "--local-epochs", config["local-epochs"], "--method", config["method"]]
    arguments += ["--least-examples", config["least-examples"], "--least-sites", config["least-sites"]]
    for what in str(config["keep"]).split():
        arguments += ["--keep", what]
    agreed = json.loads(program.run(binary, "federate", "agree", *statements, *arguments, "--out", out))
    os.replace(out / "weights.safetensors", weights_path(out, 0))
    log(INFO, "plan %s of %s", agreed["plan"][:16], ", ".join(agreed["sites"]))
    return (out / "plan.json").read_text(), agreed["plan"]


def private(strategy, dp, config, plan):
    """Flower's modifiers around a strategy: sites' updates are clipped, here or at the sites, and their mean has noise."""
    wrappers = {"server": flower.DifferentialPrivacyServerSideFixedClipping, "client": flower.DifferentialPrivacyClientSideFixedClipping}
    if dp not in wrappers:
        raise program.ProgramError(f"dp is {dp!r}; it is \"\", \"server\" or \"client\"")
    if plan["training"]["ema"] > 0.0 or plan["model"]["norm"] != "group":
        raise program.ProgramError("noise would spoil moving averages and running statistics; set training.ema = 0 and model.norm = \"group\"")
    return wrappers[dp](strategy, float(config["noise"]), float(config["clip"]), int(config["sites"]))


@app.main()
def main(grid: Grid, context: Context) -> None:
    config = context.run_config
    out = Path(str(config["out"]))
    out.mkdir(parents=True, exist_ok=True)
    # What a run before this one left would be taken for its own.
    for left in [*out.glob("round-*.safetensors"), *out.glob("statement-*.json"), out / "moments.safetensors", out / "result.json"]:
        left.unlink(missing_ok=True)
    (out / "rounds.jsonl").write_text("")
    binary = str(config["synovia"])
    plan, digest = agree(grid, config, binary, out)
    dp = str(config["dp"])
    arrays, layout, _ = program.read(weights_path(out, 0), apart=bool(dp))
    # A round goes on with those who are there: a site may be away.
    settings = {"min_train_nodes": 1, "min_evaluate_nodes": 1, "min_available_nodes": 1}
    name = str(config["strategy"])
    if dp and name not in OWN:
        raise program.ProgramError(f"dp is put around one of Flower's own strategies: {', '.join(OWN)}")
    if name == "synovia":
        strategy = BySite(binary, out, layout, **settings)
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
    losses = {}

    def keep(server_round, arrays):
        """After each round: its weights, where no one wrote them yet."""
        path = weights_path(out, server_round)
        if not path.exists():
            program.write(path, arrays, layout, {"plan": digest, "round": server_round})

    shared = {"plan": plan, "digest": digest, "layout": json.dumps(layout)}
    result = strategy.start(
        grid=grid,
        initial_arrays=arrays,
        num_rounds=int(config["rounds"]),
        timeout=float(config["timeout"]),
        train_config=ConfigRecord(shared),
        evaluate_config=ConfigRecord(shared),
        evaluate_fn=keep,
    )
    for server_round, metrics in result.evaluate_metrics_clientapp.items():
        losses[server_round] = float(metrics["validation-loss"])
    best = min(losses, key=losses.get) if losses else int(config["rounds"])
    (out / "best.safetensors").write_bytes(weights_path(out, best).read_bytes())
    (out / "result.json").write_text(json.dumps({"plan": digest, "sites": int(config["sites"]), "validation_losses": losses, "best_round": best}))
    log(INFO, "best round %s of %s; %s", best, config["rounds"], out / "best.safetensors")
