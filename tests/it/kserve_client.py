"""KServe's own clients against a running server: `kserve_client.py HTTP GRPC MODEL`. The model has inputs image, image_present,
record and record_present; ends with `ok` when all is as the protocol has it."""
import asyncio
import sys

import grpc
import httpx
import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig

HTTP, GRPC, MODEL = sys.argv[1:4]
BASE = f"http://{HTTP}"
rng = np.random.default_rng(7)


def request(shapes, rows, model=MODEL, rename=None, datatype="FP32", binary=False):
    inputs = []
    for name, tail in shapes.items():
        values = np.ones([rows, *tail], np.float32) if name.endswith("_present") else rng.random([rows, *tail], dtype=np.float32)
        tensor = InferInput((rename or {}).get(name, name), list(values.shape), datatype)
        tensor.set_data_from_numpy(values, binary_data=binary)
        inputs.append(tensor)
    return InferRequest(model_name=model, infer_inputs=inputs, request_id="r")


def values(response):
    return {output.name: output.as_numpy() for output in response.outputs}


async def refused(call, *kinds):
    try:
        await call
    except kinds as error:
        return error
    raise AssertionError("not refused")


async def main():
    rest = InferenceRESTClient(RESTConfig(protocol="v2", retries=1))
    rpc = InferenceGRPCClient(GRPC)
    assert await rest.is_server_ready(BASE) and await rest.is_server_live(BASE) and await rest.is_model_ready(BASE, MODEL)
    assert await rpc.is_server_ready() and await rpc.is_server_live() and await rpc.is_model_ready(MODEL)
    assert not await rpc.is_model_ready("nowhere")
    metadata = httpx.get(f"{BASE}/v2/models/{MODEL}").json()
    shapes = {tensor["name"]: tensor["shape"][1:] for tensor in metadata["inputs"]}
    for rows in (1, 3, 64):
        for binary in (False, True):
            asked = request(shapes, rows, binary=binary)
            by_rest = await rest.infer(BASE, asked, model_name=MODEL)
            by_rpc = await rpc.infer(asked)
            assert by_rest.id == by_rpc.id == "r"
            (one, other) = (values(by_rest), values(by_rpc))
            assert one.keys() == other.keys() == {tensor["name"] for tensor in metadata["outputs"]}
            for name in one:
                assert one[name].shape[0] == rows and np.isfinite(one[name]).all()
                assert np.allclose(one[name], other[name], atol=1e-5), name
    answers = await asyncio.gather(*(rest.infer(BASE, request(shapes, 1 + k % 3), model_name=MODEL) for k in range(32)))
    assert [a.outputs[0].shape[0] for a in answers] == [1 + k % 3 for k in range(32)]
    # What is wrong is refused, with the code of each protocol.
    for asked, code in [
        (request(shapes, 1, rename={"record": "recrod"}), 400),
        (request({**shapes, "record": [shapes["record"][0] + 1]}, 1), 400),
        (request({name: tail for name, tail in shapes.items() if name != "record"}, 1), 400),
    ]:
        error = await refused(rest.infer(BASE, asked, model_name=MODEL), httpx.HTTPStatusError)
        assert error.response.status_code == code and error.response.json()["error"], error.response.text
        error = await refused(rpc.infer(asked), grpc.aio.AioRpcError)
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT, error
    error = await refused(rest.infer(BASE, request(shapes, 1), model_name="nowhere"), httpx.HTTPStatusError)
    assert error.response.status_code == 404
    error = await refused(rpc.infer(request(shapes, 1, model="nowhere")), grpc.aio.AioRpcError)
    assert error.code() == grpc.StatusCode.NOT_FOUND
    await rpc.close()
    await rest.close()


asyncio.run(main())
print("ok")
