INPUT_SCHEMA = {
    "x": {"datatype": "FP32", "required": False, "shape": [1], "example": [-0.6]},
    "y": {"datatype": "FP32", "required": False, "shape": [1], "example": [0.0]},
    "zoom": {"datatype": "FP32", "required": False, "shape": [1], "example": [1.0]},
    "width": {"datatype": "INT16", "required": False, "shape": [1], "example": [320]},
    "height": {"datatype": "INT16", "required": False, "shape": [1], "example": [240]},
}
IS_STREAMING_OUTPUT = False
