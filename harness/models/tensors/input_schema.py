def _input(datatype, shape=(1,), **more):
    return {"datatype": datatype, "required": False, "shape": list(shape), "example": None, **more}


_NUMBERS = [f"{sign}INT{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)] + ["FP16", "FP32", "FP64", "BF16"]

IS_STREAMING_OUTPUT = False
INPUT_SCHEMA = {
    "text": _input("STRING"),
    "texts": _input("STRING", [-1]),
    "audio": _input("BYTES"),
    "settings": _input("JSON"),
    "flag": _input("BOOL"),
    "flags": _input("BOOL", [-1]),
    "grid": _input("FP32", [2, 3]),
    **{f"one_{datatype.lower()}": _input(datatype) for datatype in _NUMBERS},
    **{f"some_{datatype.lower()}": _input(datatype, [-1]) for datatype in _NUMBERS},
    "fail": _input("STRING"),
    "gate": _input("STRING"),
}
