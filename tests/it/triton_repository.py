"""A folder of `synovia export --triton` by Triton's own schema of its configuration: triton_repository.py DIR NAME"""

import sys
from pathlib import Path

import yaml
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

folder, name = Path(sys.argv[1]), sys.argv[2]
config = text_format.Parse((folder / name / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
assert (config.name, config.platform, config.max_batch_size) == (name, "onnxruntime_onnx", 32)
dims = {tensor.name: list(tensor.dims) for tensor in [*config.input, *config.output]}
assert dims["image"] == [1, 32, 32] and dims["image_present"] == [1] and dims["malignant"] == [1] and dims["stage"] == [4], dims
assert all(tensor.data_type == model_config_pb2.TYPE_FP32 for tensor in [*config.input, *config.output])
assert config.dynamic_batching.max_queue_delay_microseconds == 1000
service = yaml.safe_load((folder / f"{name}.kserve.yaml").read_text())
assert (service["apiVersion"], service["kind"]) == ("serving.kserve.io/v1beta1", "InferenceService")
assert service["spec"]["predictor"]["model"]["modelFormat"] == {"name": "onnx"} and service["metadata"]["name"] == name
print("ok")
