INPUT_SCHEMA = {
    "TEXT": {"datatype": "STRING", "required": True, "shape": [1], "example": ["Why is the sky blue?"]},
    "MAX_NEW_TOKENS": {"datatype": "INT16", "required": False, "shape": [1], "example": [256]},
}
IS_STREAMING_OUTPUT = True
