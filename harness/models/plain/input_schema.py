IS_STREAMING_OUTPUT = True
STOP_RAISES = True
INPUT_SCHEMA = {
    "count": {"datatype": "INT32", "required": True, "shape": [1], "example": [3]},
    "hold_before": {"datatype": "INT32", "required": False, "shape": [1], "example": [3]},
    "gate": {"datatype": "STRING", "required": False, "shape": [1], "example": ["/tmp/gate"]},
}
