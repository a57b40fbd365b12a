// The Python module bitplan.kernels._runtime.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cerrno>
#include <system_error>

#include "codec.h"
#include "coded_levels.h"
#include "error.h"
#include "isa/levels.h"
#include "layer_set.h"
#include "load.h"
#include "runtime.h"
#include "xor_network.h"

namespace py = pybind11;

namespace bitplan {
namespace {

using Arrays = std::vector<py::array>;

std::string shape_text(const py::array& array) { return py::str(py::tuple(array.attr("shape"))).cast<std::string>(); }

struct Batch {
  std::vector<RawArray> arrays;
  std::size_t size = 0;
};

// Checks one array per input. The arrays stay alive with the caller.
Batch check_inputs(const Runtime& runtime, const Arrays& arrays) {
  const std::vector<Port>& ports = runtime.inputs();
  if (arrays.size() != ports.size())
    throw InputError(text(arrays.size(), " arrays were given; the network has ", ports.size(), " inputs"));
  Batch batch;
  for (std::size_t i = 0; i < ports.size(); ++i) {
    const py::array& array = arrays[i];
    const Port& port = ports[i];
    const bool u8 = py::isinstance<py::array_t<std::uint8_t>>(array);
    if (!u8 && !py::isinstance<py::array_t<float>>(array))
      throw InputError(text("input '", port.name, "' is of type ", py::str(array.dtype()).cast<std::string>(),
                            "; expected uint8 or float32: convert it with .astype"));
    bool fits = std::size_t(array.ndim()) == port.shape.size() + 1;
    for (std::size_t axis = 0; fits && axis < port.shape.size(); ++axis)
      fits = std::size_t(array.shape(py::ssize_t(axis) + 1)) == port.shape[axis];
    if (!fits)
      throw InputError(text("input '", port.name, "' has shape ", shape_text(array), "; expected a batch of ",
                            to_string(port.shape)));
    if (!(array.flags() & py::array::c_style))
      throw InputError(text("input '", port.name, "' is not contiguous; pass numpy.ascontiguousarray of it"));
    const auto size = std::size_t(array.shape(0));
    if (i > 0 && size != batch.size)
      throw InputError(
          text("input '", port.name, "' holds ", size, " images, input '", ports[0].name, "' ", batch.size));
    batch.size = size;
    batch.arrays.push_back({array.data(), u8 ? Format::u8 : Format::f32});
  }
  return batch;
}

struct OutputArrays {
  std::vector<py::array_t<float>> arrays;
  std::vector<float*> data;
};

OutputArrays make_outputs(const Runtime& runtime, std::size_t batch) {
  OutputArrays outputs;
  for (const Port& port : runtime.outputs()) {
    std::vector<py::ssize_t> shape{py::ssize_t(batch)};
    shape.insert(shape.end(), port.shape.begin(), port.shape.end());
    outputs.arrays.emplace_back(shape);
    outputs.data.push_back(outputs.arrays.back().mutable_data());
  }
  return outputs;
}

std::vector<py::array_t<float>> run(Runtime& runtime, const Arrays& arrays) {
  const Batch batch = check_inputs(runtime, arrays);
  const Runtime::Lease context = runtime.acquire(batch.size);
  OutputArrays outputs = make_outputs(runtime, batch.size);
  {
    const py::gil_scoped_release unlocked;
    runtime.run(*context, batch.arrays, batch.size, outputs.data);
  }
  return std::move(outputs.arrays);
}

py::array_t<double> time_steps(Runtime& runtime, const Arrays& arrays, std::size_t runs) {
  const Batch batch = check_inputs(runtime, arrays);
  const Runtime::Lease context = runtime.acquire(batch.size);
  py::array_t<double> seconds({runs, runtime.steps().size()});
  double* const data = seconds.mutable_data();
  {
    const py::gil_scoped_release unlocked;
    runtime.time_steps(*context, batch.arrays, batch.size, runs, data);
  }
  return seconds;
}

py::array_t<double> time_runs(Runtime& runtime, const Arrays& arrays, std::size_t runs) {
  const Batch batch = check_inputs(runtime, arrays);
  const Runtime::Lease context = runtime.acquire(batch.size);
  const OutputArrays outputs = make_outputs(runtime, batch.size);
  py::array_t<double> seconds{py::ssize_t(runs)};
  double* const data = seconds.mutable_data();
  {
    const py::gil_scoped_release unlocked;
    runtime.time_runs(*context, batch.arrays, batch.size, runs, outputs.data, data);
  }
  return seconds;
}

std::unique_ptr<Runtime> load(const std::string& path, std::size_t threads, const std::string& isa) {
  try {
    const py::gil_scoped_release unlocked;
    return load_runtime(path, threads, isa);
  } catch (const std::system_error& error) {
    errno = error.code().value();
    PyErr_SetFromErrnoWithFilename(PyExc_OSError, path.c_str());
    throw py::error_already_set();
  }
}

std::unique_ptr<Runtime> from_bytes(const py::bytes& data, std::size_t threads, const std::string& isa) {
  const std::string_view view = data;
  const Bytes file(reinterpret_cast<const std::uint8_t*>(view.data()), view.size());
  const py::gil_scoped_release unlocked;
  return std::make_unique<Runtime>(file, threads, isa);
}

std::unique_ptr<LayerSet> layer_set(const py::bytes& data, std::size_t threads, const std::string& isa) {
  const std::string_view view = data;
  std::vector<std::uint8_t> file(view.begin(), view.end());
  const py::gil_scoped_release unlocked;
  return std::make_unique<LayerSet>(std::move(file), threads, isa);
}

// By layer: name, op, weight [out, in / groups, height, width] and groups, planned input, kernel; of a convolution,
// stride, padding (top, bottom, left, right) and dilation.
py::list described_layers(const LayerSet& set) {
  py::list result;
  for (std::size_t number = 0; number < set.size(); ++number) {
    const Node& node = set.layer(number);
    const LayerShape& shape = node.weight.shape;
    const std::array<std::size_t, 4> weight = {shape.out, shape.in / shape.groups, shape.height, shape.width};
    result.append(py::make_tuple(node.name, kOpNames[unsigned(node.op)], weight, shape.groups,
                                 set.planned_input(number), kKernelNames[unsigned(node.weight.kernel)],
                                 node.window.stride, node.window.padding, node.window.dilation));
  }
  return result;
}

// `array`: float32 [batch, ...], with the channels of images last where `interleaved`; so is the result for images.
py::array_t<float> run_layer(LayerSet& set, std::size_t number, const py::array_t<float>& array, bool interleaved) {
  if (array.ndim() < 2 || !(array.flags() & py::array::c_style))
    throw InputError(text("layer '", set.layer(number).name, "' was given an array of shape ", shape_text(array),
                          "; expected a contiguous batch"));
  const auto batch = std::size_t(array.shape(0));
  Shape shape;
  for (py::ssize_t axis = 1; axis < array.ndim(); ++axis) shape.push_back(std::uint32_t(array.shape(axis)));
  const bool image = shape.size() == 3;
  if (image && interleaved) shape = {shape[2], shape[0], shape[1]};
  const Shape made = set.output_shape(number, shape);
  std::vector<py::ssize_t> sizes{py::ssize_t(batch)};
  if (image)
    sizes.insert(sizes.end(), {made[1], made[2], made[0]});
  else
    sizes.insert(sizes.end(), made.begin(), made.end());
  py::array_t<float> out(sizes);
  float* const target = out.mutable_data();
  LayerSet::Lease lease = set.acquire(number, shape);
  {
    const py::gil_scoped_release unlocked;
    set.run(lease, batch, array.data(), interleaved, target);
  }
  set.release(std::move(lease));
  return out;
}

// Each C++ error becomes the Python error of the same meaning.
void translate(std::exception_ptr pointer) {
  const auto raise = [](const char* name, const char* message) {
    py::set_error(py::module_::import("bitplan.errors").attr(name), message);
  };
  try {
    if (pointer) std::rethrow_exception(pointer);
  } catch (const FormatError& error) {
    raise("FileFormatError", error.what());
  } catch (const InputError& error) {
    raise("DataError", error.what());
  } catch (const OptionError& error) {
    raise("UsageError", error.what());
  }
}

std::vector<std::pair<std::string, std::vector<std::uint32_t>>> named_shapes(const std::vector<Port>& ports) {
  std::vector<std::pair<std::string, std::vector<std::uint32_t>>> result;
  for (const Port& port : ports) result.emplace_back(port.name, port.shape);
  return result;
}

std::vector<std::string> level_names(bool supported_only) {
  std::vector<std::string> names;
  for (std::size_t i = 0; i < kLevelCount; ++i)
    if (!supported_only || kLevels[i]->supported()) names.emplace_back(kLevels[i]->isa);
  return names;
}

// By level, best first: by feature that it needs, whether this machine has it.
py::dict level_features() {
  py::dict result;
  for (std::size_t i = 0; i < kLevelCount; ++i) {
    py::dict features;
    for (const Feature& feature : features_of(kLevels[i]->isa)) features[feature.name] = feature.present;
    result[kLevels[i]->isa] = features;
  }
  return result;
}

std::vector<std::pair<unsigned, std::string>> encodings() {
  std::vector<std::pair<unsigned, std::string>> result;
  for (const CodecInfo& info : kCodecs) result.emplace_back(unsigned(result.size()), info.name);
  return result;
}

// Entropy-coded levels, int8 [rows, columns].
py::array_t<std::int8_t> decoded_levels(const py::bytes& data, std::size_t rows, std::size_t columns, int top) {
  const std::string_view view = data;
  py::array_t<std::int8_t> levels({rows, columns});
  std::int8_t* const target = levels.mutable_data();
  {
    const py::gil_scoped_release unlocked;
    decode_levels({reinterpret_cast<const std::uint8_t*>(view.data()), view.size()}, rows, columns, top, target);
  }
  return levels;
}

// Two-bit codes (level + 1, four in a byte, the first one lowest) of an xor layer: uint8 [(count + 3) / 4].
py::array_t<std::uint8_t> decoded_xor(const py::bytes& data, std::size_t count, std::size_t rate) {
  const std::string_view view = data;
  if (count == 0 || count > UINT32_MAX || rate == 0 || rate > kMaxXorRate)
    throw FormatError("an xor code needs weights, fewer than 2^32, and a rate of 1 to 96");
  if (view.size() != kXorHeaderBytes + xor_code_bytes(count, rate))
    throw FormatError("an xor code of another length than its weights and its rate ask for");
  py::array_t<std::uint8_t> codes(std::ptrdiff_t((count + 3) / 4));
  std::uint8_t* const target = codes.mutable_data();
  {
    const py::gil_scoped_release unlocked;
    decode_xor({reinterpret_cast<const std::uint8_t*>(view.data()), view.size()}, count, rate, target);
  }
  return codes;
}

}  // namespace

PYBIND11_MODULE(_runtime, module) {
  module.doc() = "The C++ runtime of bitplan; use bitplan.kernels.Runtime.";
  py::register_exception_translator(translate);
  py::class_<Runtime>(module, "Runtime")
      .def_static("load", load, py::arg("path"), py::arg("threads"), py::arg("isa"))
      .def_static("from_bytes", from_bytes, py::arg("data"), py::arg("threads"), py::arg("isa"))
      .def("run", run, py::arg("arrays"))
      .def("time_steps", time_steps, py::arg("arrays"), py::arg("runs"))
      .def("time_runs", time_runs, py::arg("arrays"), py::arg("runs"))
      .def_property_readonly("inputs", [](const Runtime& self) { return named_shapes(self.inputs()); })
      .def_property_readonly("outputs", [](const Runtime& self) { return named_shapes(self.outputs()); })
      .def_property_readonly("steps", &Runtime::steps)
      .def_property_readonly("step_kernels", &Runtime::step_kernels)
      .def_property_readonly("planned_batch", &Runtime::planned_batch)
      .def_property_readonly("weight_bytes", &Runtime::weight_bytes)
      .def_property_readonly("arena_bytes", &Runtime::arena_bytes)
      .def_property_readonly("isa", &Runtime::isa)
      .def_property("threads", &Runtime::threads, &Runtime::set_threads)
      .def_property_readonly(
          "policy_hash",
          [](const Runtime& self) { return py::bytes(reinterpret_cast<const char*>(self.policy_hash().data()), 32); })
      .def_property_readonly("preprocessing", [](const Runtime& self) {
        const Preprocessing& p = self.preprocessing();
        return std::make_tuple(p.mean, p.std, p.resize, p.crop);
      });
  py::class_<LayerSet>(module, "LayerSet")
      .def(py::init(&layer_set), py::arg("data"), py::arg("threads"), py::arg("isa"))
      .def("run", run_layer, py::arg("number"), py::arg("array"), py::arg("interleaved"))
      .def_property_readonly("layers", described_layers)
      .def_property_readonly("data",
                             [](const LayerSet& self) {
                               return py::bytes(reinterpret_cast<const char*>(self.file().data()), self.file().size());
                             })
      .def_property_readonly("weight_bytes", &LayerSet::weight_bytes)
      .def_property_readonly("isa", &LayerSet::isa)
      .def_property("threads", &LayerSet::threads, &LayerSet::set_threads);
  module.def("isa_levels", [] { return level_names(true); });
  module.def("all_isas", [] { return level_names(false); });
  module.def("level_features", level_features);
  module.def("active_isa", [] { return kernels_of("").isa; });
  module.def("encodings", encodings);
  module.def("decode_levels", decoded_levels, py::arg("data"), py::arg("rows"), py::arg("columns"), py::arg("top"));
  module.def("decode_xor", decoded_xor, py::arg("data"), py::arg("count"), py::arg("rate"));
  module.attr("kernel_version") = kKernelVersion;
  module.attr("version") = BITPLAN_VERSION;
  module.attr("interface") = BITPLAN_INTERFACE;
}

}  // namespace bitplan
