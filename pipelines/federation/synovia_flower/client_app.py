"""A site: it sends what its administrators let it state, and trains and measures by `synovia federate`.

The SuperNode's `--node-config` says where: site="north" run="/data/runs/north" statement="/data/north.json" synovia="/usr/bin/synovia".
The run folder has the site's cohort and stays here, as does what the site keeps between rounds. With secure="true" the site gives its
weights under the masks of secure aggregation only, whatever the coordinator asks for.
"""

import json
import os
import tempfile
from pathlib import Path

from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.mod import fixedclipping_mod
from flwr.supercore.differential_privacy import KEY_CLIPPING_NORM

from synovia_flower import program, sealed


def clipped(message, context, call_next):
    """Clips what the site sends, where the coordinator asks for it (`dp="client"`)."""
    config = message.content.config_records.get("config", {})
    asked = message.metadata.message_type.startswith("train") and KEY_CLIPPING_NORM in config
    return fixedclipping_mod(message, context, call_next) if asked else call_next(message, context)


app = ClientApp(mods=[sealed.masks, clipped])


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


def sent(folder, arrays, config, done):
    """The plan and the weights that all share after the round `done`, as files; and the arguments that name them."""
    plan, weights = folder / "plan.json", folder / "weights.safetensors"
    plan.write_text(config["plan"])
    program.write(weights, arrays, json.loads(config["layout"]), {"plan": config["digest"], "round": done})
    return ["--plan", plan, "--weights", weights]


@app.train()
def train(message: Message, context: Context) -> Message:
    under_masks = sealed.is_sealed(message)
    if setting(context, "secure", "false") == "true" and not under_masks:
        raise program.ProgramError("this site gives its weights under masks only; set secure=true for the run")
    arrays, config = sealed.opened(message) if under_masks else (message.content["arrays"], message.content["config"])
    with tempfile.TemporaryDirectory() as folder:
        # A round is trained from what came out of the one before it.
        files = sent(Path(folder), arrays, config, config["server-round"] - 1)
        site = ["--run", setting(context, "run"), "--site", setting(context, "site")]
        out = Path(folder) / "update.safetensors"
        program.run(binary(context), "federate", "fit", *site, *files, "--out", out)
        if under_masks:
            (shared, _), (update, header) = program.tensors(files[-1]), program.tensors(out)
            return Message(sealed.reply(shared, update, header, config), reply_to=message)
        apart = program.CONSTANTS in json.loads(config["layout"])
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
        # It is measured on what came out of itself.
        config = message.content["config"]
        files = sent(Path(folder), message.content["arrays"], config, config["server-round"])
        site = ["--run", setting(context, "run"), "--site", setting(context, "site")]
        said = program.run(binary(context), "federate", "evaluate", *site, *files)
    measured = json.loads(said)
    # Of each task the number of labels, then sums of losses, which tell more than anybody needs.
    known = sum(float(of_task[0]) for of_task in measured.pop("validation"))
    metrics = MetricRecord({"num-examples": int(known), "validation-loss": measured["validation_loss"]})
    return Message(RecordDict({"metrics": metrics, "said": ConfigRecord({"said": json.dumps(measured)})}), reply_to=message)
