// The Python module bitplan.kernels._runtime.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cerrno>
#include <optional>
#include <system_error>

#include "codec.h"
#include "error.h"
#include "mapped_file.h"
#include "runtime.h"

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

struct Outputs {
  std::vector<py::array_t<float>> arrays;
  std::vector<float*> data;
};

Outputs make_outputs(const Runtime& runtime, std::size_t batch) {
  Outputs outputs;
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
  Outputs outputs = make_outputs(runtime, batch.size);
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
  const Outputs outputs = make_outputs(runtime, batch.size);
  py::array_t<double> seconds{py::ssize_t(runs)};
  double* const data = seconds.mutable_data();
  {
    const py::gil_scoped_release unlocked;
    runtime.time_runs(*context, batch.arrays, batch.size, runs, outputs.data, data);
  }
  return seconds;
}

std::unique_ptr<Runtime> load(const std::string& path, std::size_t threads, const std::string& isa) {
  std::optional<MappedFile> file;
  try {
    file.emplace(path);
  } catch (const std::system_error& error) {
    errno = error.code().value();
    PyErr_SetFromErrnoWithFilename(PyExc_OSError, path.c_str());
    throw py::error_already_set();
  }
  try {
    const py::gil_scoped_release unlocked;
    return std::make_unique<Runtime>(file->bytes(), threads, isa);
  } catch (const FormatError& error) {
    throw FormatError(text(path, ": ", error.what()));
  }
}

std::unique_ptr<Runtime> from_bytes(const py::bytes& data, std::size_t threads, const std::string& isa) {
  const std::string_view view = data;
  const Bytes file(reinterpret_cast<const std::uint8_t*>(view.data()), view.size());
  const py::gil_scoped_release unlocked;
  return std::make_unique<Runtime>(file, threads, isa);
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

std::vector<std::pair<unsigned, std::string>> encodings() {
  std::vector<std::pair<unsigned, std::string>> result;
  for (const CodecInfo& info : kCodecs) result.emplace_back(unsigned(info.codec), info.name);
  return result;
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
  module.def("isa_levels", [] { return level_names(true); });
  module.def("all_isas", [] { return level_names(false); });
  module.def("active_isa", [] { return kernels_of("").isa; });
  module.def("encodings", encodings);
  module.attr("kernel_version") = kKernelVersion;
}

}  // namespace bitplan
