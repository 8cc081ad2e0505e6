IS_STREAMING_OUTPUT = True
INPUT_SCHEMA = {
    "word": {"datatype": "STRING", "required": True, "shape": [1], "example": ["word"]},
    "raise_after": {"datatype": "INT32", "required": False, "shape": [1], "example": [2]},
}
