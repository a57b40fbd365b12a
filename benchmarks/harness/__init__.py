"""Times bitplan and its peers (OpenVINO, ONNX Runtime) interleaved in one run, every engine in a process of its own."""
