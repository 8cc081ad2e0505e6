IS_STREAMING_OUTPUT = True
INPUT_SCHEMA = {
    "word": {"datatype": "STRING", "required": True, "shape": [1], "example": ["word"]},
    "by": {"datatype": "STRING", "required": True, "shape": [1], "example": ["thread"]},
    "gate": {"datatype": "STRING", "required": False, "shape": [1], "example": ["/tmp/gate"]},
    "settings": {"datatype": "JSON", "required": False, "shape": [1], "example": [{}]},
}
