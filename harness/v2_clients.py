"""Calls of the official clients of /v2, which have an environment of their own (requirements-clients.txt).

`python v2_clients.py CALL URL MODEL` prints the result as JSON. Imports nothing of Everstream.
"""

import inspect
import json
import sys
from urllib.parse import urlsplit

DATATYPES = ["INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64", "FP16", "FP32", "FP64", "BF16"]
NUMBERS = [0, 1, 2.5, 100]
"""Each fits each datatype, after rounding down for integers."""
TEXTS = ["héllo", "", "日本 🙂\n"]


def triton(url):
    import tritonclient.http

    return tritonclient.http.InferenceServerClient(urlsplit(url).netloc)


def tensor(name, datatype, values, **options):
    import numpy as np
    from tritonclient.http import InferInput
    from tritonclient.utils import triton_to_np_dtype

    array = np.array(values, dtype=triton_to_np_dtype(datatype))
    made = InferInput(name, list(array.shape), datatype)
    return made.set_data_from_numpy(array, **options)


def inputs_of_all_datatypes(binary):
    datatypes = [each for each in DATATYPES if binary or each != "BF16"]
    tensors = [tensor(f"some_{each.lower()}", each, NUMBERS, binary_data=binary) for each in datatypes]
    return [
        *tensors,
        tensor("texts", "BYTES", TEXTS, binary_data=binary),
        tensor("text", "BYTES", ["one"], binary_data=binary),
        tensor("flags", "BOOL", [True, False], binary_data=binary),
        tensor("grid", "FP32", [[1, 2, 3], [4, 5, 6]], binary_data=binary),
        tensor("unknown", "INT32", [7], binary_data=binary),
    ]


def arrays(result):
    """Every output as numpy has it."""
    names = [output["name"] for output in result.get_response()["outputs"]]
    found = {name: result.as_numpy(name).tolist() for name in names}
    return {name: [each.decode() if isinstance(each, bytes) else each for each in found[name]] for name in names}


def triton_binary(url, model):
    return arrays(triton(url).infer(model, inputs_of_all_datatypes(True)))


def triton_json(url, model):
    return arrays(triton(url).infer(model, inputs_of_all_datatypes(False)))


def triton_gzip(url, model):
    return arrays(triton(url).infer(model, inputs_of_all_datatypes(True), request_compression_algorithm="gzip"))


def triton_deflate(url, model):
    return arrays(triton(url).infer(model, inputs_of_all_datatypes(False), request_compression_algorithm="deflate"))


def triton_requested_output(url, model):
    from tritonclient.http import InferRequestedOutput

    wanted = [InferRequestedOutput("text", binary_data=False)]
    inputs = [tensor("text", "BYTES", ["a"]), tensor("texts", "BYTES", ["b"])]
    return triton(url).infer(model, inputs, outputs=wanted, request_id="42", model_version="1").get_response()


def triton_of_a_streaming_model(url, model):
    return triton(url).infer(model, [tensor("texts", "BYTES", ["a", "b", "c"])]).get_response()


def triton_about(url, model):
    client = triton(url)
    return {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model_ready": client.is_model_ready(model),
        "version_ready": client.is_model_ready(model, "1"),
        "other_ready": client.is_model_ready("other"),
        "other_version_ready": client.is_model_ready(model, "2"),
        "server": client.get_server_metadata(),
        "model": client.get_model_metadata(model),
        "index": client.get_model_repository_index(),
    }


def triton_errors(url, model):
    from tritonclient.utils import InferenceServerException

    client = triton(url)
    calls = {
        "unknown model": lambda: client.infer("other", [tensor("text", "BYTES", ["a"])]),
        "wrong datatype": lambda: client.infer(model, [tensor("text", "FP32", [1])]),
        "wrong shape": lambda: client.infer(model, [tensor("grid", "FP32", [1, 2])]),
        "out of bounds": lambda: client.infer(model, [tensor("one_int8", "INT32", [300])]),
        "failing model": lambda: client.infer(model, [tensor("fail", "BYTES", ["told to fail"])]),
    }
    errors = {}
    for name, call in calls.items():
        try:
            call()
        except InferenceServerException as error:
            errors[name] = [error.status(), error.message()]
    return errors


def inferless_data(url, model):
    import inferless

    data = {"text": "a", "texts": ["b", "c"], "flag": True, "one_int32": 3, "some_fp32": [0.5], "grid": [[1, 2, 3]] * 2}
    return inferless.call(f"{url}/v2/models/{model}/versions/1/infer", "key", data=data)


def inferless_inputs(url, model):
    import inferless

    inputs = {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["Once upon a time"]}]}
    return inferless.call(f"{url}/v2/models/{model}/infer", "key", inputs=inputs)


def inferless_batch(url, model):
    import inferless

    return inferless.call(f"{url}/v2/models/{model}/infer", "key", data={"text": "a", "texts": ["b"]}, is_batch=True)


def inferless_openai(url, model):
    from inferless.api import InferlessOpenAIClient

    client = InferlessOpenAIClient("key", f"{url}/v2/models/{model}/infer")
    return client.call_infer({"role": "user"}, flag=True, one_fp32=0.5, text="a", audio=None)


def inferless_error(url, model):
    import inferless

    try:
        inferless.call(f"{url}/v2/models/{model}/infer", "key", data={"one_int8": 300})
    except Exception as error:
        return str(error)


if __name__ == "__main__":
    calls = {name: call for name, call in globals().items() if inspect.isfunction(call)}
    json.dump(calls[sys.argv[1]](*sys.argv[2:]), sys.stdout)
