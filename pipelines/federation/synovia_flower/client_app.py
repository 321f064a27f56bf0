"""A site: it sends what its administrators let it state, and trains and measures by `synovia federate`.

The SuperNode's `--node-config` says where: site="north" run="/data/runs/north" statement="/data/north.json" synovia="/usr/bin/synovia".
The run folder has the site's cohort and stays here, as does what the site keeps between rounds.
"""

import json
import os
import tempfile
from pathlib import Path

from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.mod import fixedclipping_mod
from flwr.supercore.differential_privacy import KEY_CLIPPING_NORM

from synovia_flower import program



def clipped(message, context, call_next):
    """Clips what the site sends, where the coordinator asks for it (`dp="client"`)."""
    asked = message.metadata.message_type.startswith("train") and KEY_CLIPPING_NORM in message.content["config"]
    return fixedclipping_mod(message, context, call_next) if asked else call_next(message, context)


app = ClientApp(mods=[clipped])


def setting(context, name, default=None):
    """One of the node's."""
    value = context.node_config.get(name, default)
    if value is None:
        raise program.ProgramError(f"the SuperNode's --node-config does not say {name}=\"...\"")
    return str(value)


def binary(context):
    return setting(context, "synovia", os.environ.get("SYNOVIA", "synovia"))


@app.query()
def state(message: Message, context: Context) -> Message:
    """What the site has, as a file that people at the site have made and seen."""
    statement = Path(setting(context, "statement")).read_text()
    return Message(RecordDict({"state": ConfigRecord({"statement": statement})}), reply_to=message)


def sent(message, folder):
    """The plan and the weights that all share, as files; and the arguments that name them."""
    config = message.content["config"]
    plan, weights = folder / "plan.json", folder / "weights.safetensors"
    plan.write_text(config["plan"])
    # A round is trained from what came out of the one before it, and measured on what came out of itself.
    done = config["server-round"] - (1 if message.metadata.message_type.startswith("train") else 0)
    program.write(weights, message.content["arrays"], json.loads(config["layout"]), {"plan": config["digest"], "round": done})
    return ["--plan", plan, "--weights", weights]


@app.train()
def train(message: Message, context: Context) -> Message:
    with tempfile.TemporaryDirectory() as folder:
        files = sent(message, Path(folder))
        site = ["--run", setting(context, "run"), "--site", setting(context, "site")]
        out = Path(folder) / "update.safetensors"
        program.run(binary(context), "federate", "fit", *site, *files, "--out", out)
        apart = program.CONSTANTS in json.loads(message.content["config"]["layout"])
        arrays, layout, header = program.read(out, apart)
    metrics = {"num-examples": max(header["examples"].values())}
    # A private training tells no losses, which have no noise, but what it has spent.
    if header["losses"]:
        metrics["loss"] = sum(header["losses"]) / len(header["losses"])
    if "epsilon" in header:
        metrics["epsilon"] = header["epsilon"]
    metrics = MetricRecord(metrics)
    how = ConfigRecord({"header": json.dumps(header), "layout": json.dumps(layout)})
    content = {"arrays": arrays, "metrics": metrics, "how": how}
    return Message(RecordDict(content), reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    with tempfile.TemporaryDirectory() as folder:
        files = sent(message, Path(folder))
        site = ["--run", setting(context, "run"), "--site", setting(context, "site")]
        said = program.run(binary(context), "federate", "evaluate", *site, *files)
    measured = json.loads(said)
    known = sum(float(n) for _, n in measured["validation"])
    metrics = MetricRecord({"num-examples": int(known), "validation-loss": measured["validation_loss"]})
    return Message(RecordDict({"metrics": metrics, "said": ConfigRecord({"said": said})}), reply_to=message)
