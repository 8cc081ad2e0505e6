from everstream.errors import InvalidInput


def _scalar(datatype, **limits):
    return {"datatype": datatype, "required": False, "shape": [1], "example": [1], **limits}


IS_STREAMING_OUTPUT = True
INPUT_SCHEMA = {
    "prompt": _scalar("STRING", is_prompt=True) | {"example": ['{"texts": ["a"]}']},
    "texts": {
        "datatype": "STRING",
        "required": False,
        "shape": [-1],
        "example": ["a"],
        "max_items": 5000,
        "is_prompt": True,
    },
    "repeat": _scalar("INT32", minimum=1, maximum=100_000),
    "pause_ms": _scalar("FP32", minimum=0, maximum=1000),
    "gate": _scalar("STRING"),
    "check_gate": _scalar("STRING"),
    "check_begun": _scalar("STRING"),
    "hold_before": _scalar("INT32"),
    "raise_before": _scalar("INT32"),
    "kill_before": _scalar("INT32"),
    "segfault_before": _scalar("INT32"),
    "die_before": _scalar("INT32"),
    "kill_after": _scalar("INT32", minimum=1),
    "forget_to_finalise": _scalar("BOOLEAN"),
}


def check_inputs(inputs):
    if "texts" not in inputs and "prompt" not in inputs:
        raise InvalidInput("texts is missing", param="texts")
