IS_STREAMING_OUTPUT = True
INPUT_SCHEMA = {
    "text": {"datatype": "STRING", "required": True, "shape": [1], "example": ["Say it out loud"]},
    "speed": {
        "datatype": "FP32",
        "required": False,
        "shape": [1],
        "example": [1.25],
        "minimum": 0.5,
        "maximum": 2,
    },
    "seed": {"datatype": "INT64", "required": False, "shape": [1], "example": [7]},
    "is_loud": {"datatype": "BOOL", "required": False, "shape": [1], "example": [True]},
    "voices": {"datatype": "STRING", "required": False, "shape": [-1], "example": ["anna", "ben"]},
}
