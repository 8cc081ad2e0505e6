def _number(datatype, **more):
    return {"datatype": datatype, "required": False, "shape": [1], "example": [1], "minimum": 0, **more}


IS_STREAMING_OUTPUT = True
INPUT_SCHEMA = {
    "size": _number("INT32") | {"required": True},
    "count": _number("INT32"),
    "pause_ms": _number("FP32", maximum=1000),
}
