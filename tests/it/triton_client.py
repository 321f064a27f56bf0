"""Triton's own client against a running server: `triton_client.py HTTP GRPC MODEL`. The model has inputs image, image_present,
record and record_present; ends with `ok` when all is as the protocol has it."""
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import tritonclient.grpc as tg
import tritonclient.http as th
from tritonclient.utils import InferenceServerException

HTTP, GRPC, MODEL = sys.argv[1:4]
rng = np.random.default_rng(7)


def tensors(metadata, rows):
    """Values of each input: random pixels, features of which some are missing, and everything present."""
    out = {}
    for tensor in metadata["inputs"]:
        shape = [rows] + [int(n) for n in tensor["shape"][1:]]
        values = rng.random(shape, dtype=np.float32)
        if tensor["name"] == "record":
            values[rng.random(shape) < 0.3] = np.nan
        if tensor["name"].endswith("_present"):
            values[:] = 1
        out[tensor["name"]] = values
    return out


def inputs(kind, values, binary=None, datatype="FP32", rename=None):
    out = []
    for name, array in values.items():
        tensor = kind.InferInput((rename or {}).get(name, name), list(array.shape), datatype)
        if binary is None:
            tensor.set_data_from_numpy(array)
        else:
            tensor.set_data_from_numpy(array, binary_data=binary)
        out.append(tensor)
    return out


def refused(what, status, words):
    try:
        what()
    except InferenceServerException as error:
        text = error.message()
        assert str(error.status()).split(".")[-1] == status, (error.status(), text)
        assert all(word in text for word in words), text
    else:
        raise AssertionError(f"not refused: {words}")


http = th.InferenceServerClient(HTTP, concurrency=16)
grpc = tg.InferenceServerClient(GRPC)
metadata = http.get_model_metadata(MODEL)
names = [tensor["name"] for tensor in metadata["outputs"]]
assert {tensor["name"] for tensor in metadata["inputs"]} == {"image", "image_present", "record", "record_present"}, metadata
assert all(tensor["datatype"] == "FP32" and tensor["shape"][0] == -1 for tensor in metadata["inputs"] + metadata["outputs"])

# What the server says of itself, by both ways.
for client in (http, grpc):
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready(MODEL) and client.is_model_ready(MODEL, "1")
    assert not client.is_model_ready("nowhere") and not client.is_model_ready(MODEL, "7")
assert "binary_tensor_data" in http.get_server_metadata()["extensions"]
assert list(grpc.get_server_metadata().extensions) == http.get_server_metadata()["extensions"]
by_grpc = grpc.get_model_metadata(MODEL, as_json=True)
assert [t["name"] for t in by_grpc["outputs"]] == names and by_grpc["versions"] == metadata["versions"]
config, by_grpc = http.get_model_config(MODEL), grpc.get_model_config(MODEL).config
assert config["max_batch_size"] == by_grpc.max_batch_size > 1
assert [list(i.dims) for i in by_grpc.input] == [i["dims"] for i in config["input"]]
assert [list(o.dims) for o in by_grpc.output] == [o["dims"] for o in config["output"]]

# The same values by JSON, by binary tensors, by raw and by typed gRPC give the same answers, for any number of rows.
for rows in (1, 2, 7, 100):
    values = tensors(metadata, rows)
    present = {name: array for name, array in values.items()}
    binary = http.infer(MODEL, inputs(th, present, True), request_id="r")
    assert binary.get_response()["id"] == "r" and binary.get_response()["model_version"] == "1"
    raw = grpc.infer(MODEL, inputs(tg, present), request_id="r")
    assert raw.get_response().id == "r"
    packed = http.infer(MODEL, inputs(th, present, True), request_compression_algorithm="gzip")
    for name in names:
        expected = binary.as_numpy(name)
        assert expected.shape[0] == rows and np.isfinite(expected).all()
        # A batch of others may be summed in another order.
        assert np.allclose(raw.as_numpy(name), expected, atol=1e-5), name
        assert np.allclose(packed.as_numpy(name), expected, atol=1e-5), name
    # JSON has no number for a missing one, so that the values are whole here.
    whole = {name: np.nan_to_num(array) for name, array in values.items()}
    as_json = http.infer(MODEL, inputs(th, whole, False), outputs=[th.InferRequestedOutput(n, binary_data=False) for n in names])
    as_binary = http.infer(MODEL, inputs(th, whole, True))
    for name in names:
        assert np.allclose(as_json.as_numpy(name), as_binary.as_numpy(name), atol=1e-5), name
one = grpc.infer(MODEL, inputs(tg, present), outputs=[tg.InferRequestedOutput(names[-1])])
assert [output.name for output in one.get_response().outputs] == names[-1:]

# Many at a time: each gets its own answer.
many = [tensors(metadata, 1 + k % 3) for k in range(64)]
expected = [http.infer(MODEL, inputs(th, values, True)).as_numpy(names[0]) for values in many]
with ThreadPoolExecutor(16) as pool:
    by_http = list(pool.map(lambda v: th.InferenceServerClient(HTTP).infer(MODEL, inputs(th, v, True)).as_numpy(names[0]), many))
    by_grpc = list(pool.map(lambda v: grpc.infer(MODEL, inputs(tg, v)).as_numpy(names[0]), many))
for got in (by_http, by_grpc):
    assert all(a.shape == b.shape and np.allclose(a, b, atol=1e-5) for a, b in zip(got, expected))

# What is wrong is refused, with the code of each protocol.
values = tensors(metadata, 2)
without = {name: array for name, array in values.items() if name != "record"}
wide = {**values, "record": np.zeros((2, values["record"].shape[1] + 1), np.float32)}
uneven = {**values, "record": values["record"][:1]}
whole = np.zeros(values["record"].shape, np.int64)
for client, kind, bad, missing in ((http, th, "400", "404"), (grpc, tg, "INVALID_ARGUMENT", "NOT_FOUND")):
    refused(lambda: client.infer("nowhere", inputs(kind, values)), missing, ["nowhere"])
    refused(lambda: client.infer(MODEL, inputs(kind, values), model_version="7"), missing, ["7"])
    refused(lambda: client.infer(MODEL, inputs(kind, values, rename={"record": "recrod"})), bad, ["recrod"])
    refused(lambda: client.infer(MODEL, inputs(kind, without)), bad, ["record", "missing"])
    refused(lambda: client.infer(MODEL, inputs(kind, wide)), bad, ["record", "shape"])
    refused(lambda: client.infer(MODEL, inputs(kind, uneven)), bad, ["rows"])
    integer = kind.InferInput("record", list(whole.shape), "INT64")
    integer.set_data_from_numpy(whole)
    others = inputs(kind, without)
    refused(lambda: client.infer(MODEL, others + [integer]), bad, ["INT64", "FP32"])
    wanted = [kind.InferRequestedOutput("nothing")]
    refused(lambda: client.infer(MODEL, inputs(kind, values), outputs=wanted), bad, ["nothing"])
    # A tensor whose bytes are fewer than its shape asks for.
    short = inputs(kind, values)
    short[0].set_shape([3] + list(values[short[0].name()].shape[1:]))
    refused(lambda: client.infer(MODEL, short), bad, [])

# The repository and the statistics.
assert {"name": MODEL, "version": "1", "state": "READY", "reason": ""} in http.get_model_repository_index()
assert [(m.name, m.state) for m in grpc.get_model_repository_index().models] == [(MODEL, "READY")]
counts = http.get_inference_statistics(MODEL)["model_stats"][0]
assert counts["inference_count"] >= 500 and counts["inference_stats"]["success"]["count"] >= 200, counts
assert grpc.get_inference_statistics(MODEL).model_stats[0].inference_count == counts["inference_count"]
http.unload_model(MODEL)
assert not http.is_model_ready(MODEL)
refused(lambda: grpc.infer(MODEL, inputs(tg, values)), "UNAVAILABLE", ["not loaded"])
grpc.load_model(MODEL)
assert http.is_model_ready(MODEL)
refused(lambda: http.load_model("nowhere"), "404", [])
http.infer(MODEL, inputs(th, values))
print("ok")
