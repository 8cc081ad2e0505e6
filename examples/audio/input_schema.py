INPUT_SCHEMA = {
    "notes": {"datatype": "STRING", "required": True, "shape": [1], "example": ["CDEC"]},
}
IS_STREAMING_OUTPUT = True
