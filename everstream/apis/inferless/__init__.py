"""The Open Inference Protocol (KServe v2), as Inferless, Triton and their clients speak it."""
