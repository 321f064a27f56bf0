"""A site with secure="true" is asked in ways that would bring its weights out without masks; what it says to each, a line."""

import sys

sys.path.insert(0, "pipelines/federation")

from flwr.app import ConfigRecord, Context, Message, RecordDict  # noqa: E402
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS, Key, Stage  # noqa: E402
from flwr.supercore.task_identity import TaskIdentity  # noqa: E402

from synovia_flower.client_app import app  # noqa: E402

TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1
asked_for_masks = {Key.STAGE: Stage.SETUP}
for message_type, configs in [("train", None), ("train.default", None), ("train.default", asked_for_masks), ("train.default", {})]:
    content = RecordDict({"config": ConfigRecord({})} if configs is None else {RECORD_KEY_CONFIGS: ConfigRecord(configs)})
    context = Context(run_id=1, node_id=1, node_config={"secure": "true"}, state=RecordDict(), run_config={})
    try:
        app(Message(content, dst_node_id=1, message_type=message_type), context)
        print(f"{message_type}: answered")
    except Exception as refusal:
        print(f"{message_type}: {type(refusal).__name__}: {refusal}")
