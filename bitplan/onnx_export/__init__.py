"""An artifact as an ONNX file that ONNX Runtime executes: quantised layers as QuantizeLinear and DequantizeLinear."""
