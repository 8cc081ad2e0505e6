INPUT_SCHEMA = {
    "steps": {"datatype": "INT8", "required": True, "shape": [1], "example": [5]},
}
IS_STREAMING_OUTPUT = True
