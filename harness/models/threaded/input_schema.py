def _optional(datatype):
    return {"datatype": datatype, "required": False, "shape": [1], "example": [1]}


IS_STREAMING_OUTPUT = True
INPUT_SCHEMA = {
    "word": {"datatype": "STRING", "required": True, "shape": [1], "example": ["word"]},
    "count": {"datatype": "INT32", "required": True, "shape": [1], "example": [3]},
    "pause_ms": _optional("FP32"),
    "gate": _optional("STRING"),
    "hold_before": _optional("INT32"),
    "raise_before": _optional("INT32"),
    "return_after": _optional("INT32"),
    "act": _optional("STRING"),
}
