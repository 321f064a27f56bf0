"""Secure aggregation by Flower's SecAgg+ (Bell et al. 2020): the coordinator sees sums over sites, and no site's own numbers.

What a site sends under masks is for each number how far it moved times how many examples trained it, and for each name those examples.
Of the sums the coordinator makes the mean by examples that `synovia federate aggregate` makes of updates that it can see.
"""

import json

import numpy
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from flwr.client.mod import secaggplus_mod
from flwr.common import Code, FitIns, FitRes, Status, ndarrays_to_parameters, parameters_to_ndarrays
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS, Stage
from flwr.common.secure_aggregation.secaggplus_constants import Key as Stated
from flwr.compat.common import recorddict_compat as compat
from flwr.server import LegacyContext
from flwr.server.workflow import SecAggPlusWorkflow
from flwr.server.workflow.constant import MAIN_CONFIGS_RECORD, MAIN_PARAMS_RECORD, Key

from synovia_flower import program

# What a sum's part can be at most on either side of 0, and into how many steps that is cut: with 128 sites sums stay below the 2^32
# that masks are drawn from.
RANGE, STEPS, MOST_SITES = 8.0, 1 << 24, 128
# Of two sites each would know the other's part from the sum.
LEAST_SITES = 3
# Of the sites that have to be there to the end, so that masks of the others can be taken off.
SHARE = 0.6
# Keys of the coordinator's settings.
ROWS, MOST = "rows", "most-examples"


def is_sealed(message):
    # Of this type alone: any other passes Flower's part of the protocol without a mask.
    return message.metadata.message_type == "train" and RECORD_KEY_CONFIGS in message.content.config_records


def masks(message, context, call_next):
    """A site's part of the protocol, where the coordinator asks for it."""
    if not is_sealed(message):
        return call_next(message, context)
    config = message.content.config_records[RECORD_KEY_CONFIGS]
    # The keys of all that share masks, and the stage.
    if config[Stated.STAGE] == Stage.SHARE_KEYS and len(config) - 1 < LEAST_SITES:
        raise program.ProgramError(f"masks are shared by {len(config) - 1} sites, and hide nothing below {LEAST_SITES}")
    return secaggplus_mod(message, context, call_next)


def opened(message):
    """The weights and settings of a message that came by the protocol."""
    asked = compat.recorddict_to_fitins(message.content, keep_input=True)
    rows = json.loads(asked.config[ROWS])
    return ArrayRecord(dict(zip(rows, map(Array, parameters_to_ndarrays(asked.parameters)), strict=True))), asked.config


def before(shared, name):
    """What a number was; an average that nobody has yet begins as the model."""
    return shared.get(name, shared.get(name.removeprefix(program.AVERAGE)))


def reply(shared, update, header, config):
    """What goes under masks, and beside them who sent it; `shared` and `update` are numbers by name."""
    names, most, examples = sorted(update), int(config[MOST]), header["examples"]
    parts = [(numpy.float64(update[name]) - before(shared, name)).ravel() * (examples[name] / most) for name in names]
    moved, counts = numpy.concatenate(parts), numpy.array([examples[name] / most for name in names])
    # Masks would hide it from the coordinator, who can't leave it out.
    furthest = max(numpy.abs(moved).max(), counts.max())
    if not furthest <= RANGE:
        raise program.ProgramError(f"a number moved by {furthest}: more than the {RANGE} that fit under masks; the training has diverged")
    # How many examples and which losses a site had is the site's own.
    beside = {"names": json.dumps(names), "site": header["site"]} | ({"epsilon": header["epsilon"]} if "epsilon" in header else {})
    of_site = FitRes(Status(Code.OK, ""), ndarrays_to_parameters([moved, counts]), 1, beside)
    return compat.fitres_to_recorddict(of_site, keep_input=True)


def merged(shared, names, moved, counts, sites, most):
    """The shared numbers after a round, from the means over its sites of what they sent; who trained none of them leaves them as they are."""
    after, at = dict(shared), 0
    for name, count in zip(names, counts, strict=True):
        old = before(shared, name)
        part = moved[at : at + old.size].reshape(old.shape)
        at += old.size
        # Masks cost a rounding; examples are whole.
        examples = round(count * sites * most)
        after[name] = numpy.float32(old + part * (sites * most / examples)) if examples > 0 else old
    if at != moved.size:
        raise program.ProgramError(f"{moved.size} numbers where the model has {at}")
    return after


class Once:
    """What the protocol asks of a strategy, for one round."""

    def __init__(self, messages):
        self.messages, self.replies, self.failed = messages, [], []

    def configure_fit(self, server_round, parameters, client_manager):
        asked = []
        for message in self.messages:
            arrays, config = message.content["arrays"], dict(message.content["config"])
            config[ROWS] = json.dumps(list(arrays))
            of_node = ndarrays_to_parameters([array.numpy() for array in arrays.values()])
            asked.append((Node(message.metadata.dst_node_id), FitIns(of_node, config)))
        return asked

    def aggregate_fit(self, server_round, results, failures):
        self.replies, self.failed = [reply for _, reply in results], failures
        return None, {}

    def num_available(self):
        return len(self.messages)


class Node:
    def __init__(self, node_id):
        self.node_id = node_id


class Sums:
    """A grid through which trainings come back as one: the names, two rows of means over sites, and what each site says beside them."""

    def __init__(self, grid, context, timeout):
        self.grid, self.context, self.timeout, self.round = grid, context, timeout, 0

    def __getattr__(self, name):
        return getattr(self.grid, name)

    def send_and_receive(self, messages, *, timeout=None):
        messages = list(messages)
        if not messages or messages[0].metadata.message_type != "train":
            return self.grid.send_and_receive(messages, timeout=timeout)
        once = Once(messages)
        self.round += 1
        state = self.context.state
        state.config_records[MAIN_CONFIGS_RECORD] = ConfigRecord({Key.CURRENT_ROUND: self.round})
        # Each node is sent what `configure_fit` says, and not this.
        state.array_records[MAIN_PARAMS_RECORD] = ArrayRecord()
        protocol = SecAggPlusWorkflow(1.0, SHARE, max_weight=1.0, clipping_range=RANGE, quantization_range=STEPS, timeout=self.timeout)
        protocol(self.grid, LegacyContext(self.context, strategy=once, client_manager=once))
        if not once.replies:
            raise program.ProgramError(f"{len(messages)} sites were asked, and too few stayed to the end for their masks to be taken off")
        names = {reply.metrics["names"] for reply in once.replies}
        if len(names) != 1:
            raise program.ProgramError("sites sent weights of different models")
        moved, counts = parameters_to_ndarrays(once.replies[0].parameters)
        return [(json.loads(names.pop()), moved, counts, [reply.metrics for reply in once.replies])]
