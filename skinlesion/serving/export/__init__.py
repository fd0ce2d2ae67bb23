"""The classifier as ONNX: written, run, held against torch, timed."""
