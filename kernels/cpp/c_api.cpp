// The C interface (include/bitplan.h) over Runtime. No exception leaves this file.
#include <algorithm>
#include <cstring>
#include <new>
#include <system_error>

#include "bitplan.h"
#include "error.h"
#include "load.h"

using bitplan::Runtime;
using bitplan::text;

struct bitplan_runtime {
  explicit bitplan_runtime(std::unique_ptr<Runtime> loaded)
      : runtime(std::move(loaded)), inputs(ports_of(runtime->inputs())), outputs(ports_of(runtime->outputs())) {
    const bitplan::Preprocessing& preprocessing = runtime->preprocessing();
    info = {.inputs = inputs.size(),
            .outputs = outputs.size(),
            .planned_batch = runtime->planned_batch(),
            .threads = runtime->threads(),
            .isa = runtime->isa(),
            .weight_bytes = runtime->weight_bytes(),
            .arena_bytes = runtime->arena_bytes(),
            .policy_hash = runtime->policy_hash().data(),
            .channels = preprocessing.mean.size(),
            .mean = preprocessing.mean.data(),
            .std = preprocessing.std.data(),
            .resize = preprocessing.resize,
            .crop = preprocessing.crop};
  }

  static std::vector<bitplan_port> ports_of(const std::vector<bitplan::Port>& ports) {
    std::vector<bitplan_port> result;
    for (const bitplan::Port& port : ports)
      result.push_back({port.name.c_str(), port.shape.data(), port.shape.size(), bitplan::element_count(port.shape)});
    return result;
  }

  std::unique_ptr<Runtime> runtime;
  std::vector<bitplan_port> inputs, outputs;  // point into the runtime
  bitplan_info info;
};

namespace {

// What the caller passes has no meaning at all.
struct ArgumentError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

thread_local std::string last_error;

bitplan_status fail(bitplan_status status, const char* message) noexcept {
  try {
    last_error = message;
  } catch (const std::bad_alloc&) {
    last_error.clear();
  }
  return status;
}

// Each C++ error becomes the status of the same meaning.
template <typename Body>
bitplan_status guarded(const Body& body) noexcept {
  try {
    body();
    return BITPLAN_OK;
  } catch (const ArgumentError& error) {
    return fail(BITPLAN_ERROR_ARGUMENT, error.what());
  } catch (const bitplan::OptionError& error) {
    return fail(BITPLAN_ERROR_OPTION, error.what());
  } catch (const bitplan::FormatError& error) {
    return fail(BITPLAN_ERROR_FORMAT, error.what());
  } catch (const bitplan::InputError& error) {
    return fail(BITPLAN_ERROR_INPUT, error.what());
  } catch (const std::system_error& error) {
    return fail(BITPLAN_ERROR_SYSTEM, error.what());
  } catch (const std::bad_alloc&) {
    return fail(BITPLAN_ERROR_MEMORY, "out of memory");
  } catch (const std::exception& error) {
    return fail(BITPLAN_ERROR_INTERNAL, error.what());
  } catch (...) {
    return fail(BITPLAN_ERROR_INTERNAL, "an unknown exception");
  }
}

void require(const void* pointer, const char* name) {
  if (!pointer) throw ArgumentError(text(name, " is NULL"));
}

struct Options {
  std::size_t threads = 1;
  std::string isa;
};

// Reads options of any version: fields that the caller does not know are 0, and those that only the caller knows must
// be (as in Linux's openat2 and clone3).
Options read_options(const bitplan_options* given) {
  if (!given) return {};
  constexpr std::size_t kFirst = offsetof(bitplan_options, isa) + sizeof(given->isa);  // of version 1
  constexpr std::size_t kLargest = 4096;                                               // anything above is no size
  const std::size_t size = given->size;
  if (size < kFirst || size > kLargest)
    throw ArgumentError(text("options.size is ", size, "; set it to sizeof(bitplan_options)"));
  const auto* const bytes = reinterpret_cast<const unsigned char*>(given);
  for (std::size_t i = sizeof(bitplan_options); i < size; ++i)
    if (bytes[i])
      throw ArgumentError(text("options set a field that API version ", BITPLAN_API_VERSION,
                               " of this library does not know; use a newer library"));
  bitplan_options known{};
  std::memcpy(&known, given, std::min(size, sizeof known));
  return {known.threads ? known.threads : 1, known.isa ? known.isa : ""};
}

// Sets *runtime to what `load` makes of the options, or to NULL.
template <typename Load>
bitplan_status load_with(const bitplan_options* options, bitplan_runtime** runtime, const Load& load) noexcept {
  return guarded([&] {
    require(runtime, "runtime");
    *runtime = nullptr;
    *runtime = new bitplan_runtime(load(read_options(options)));
  });
}

const bitplan_port* port_of(const std::vector<bitplan_port>& ports, std::size_t index, const char* kind) {
  if (index >= ports.size())
    throw ArgumentError(text("the network has ", ports.size(), " ", kind, "s, none has the index ", index));
  return &ports[index];
}

void check_count(std::size_t given, std::size_t expected, const char* kind) {
  if (given != expected) throw bitplan::InputError(text(given, " ", kind, "s were given; the network has ", expected));
}

void check_bytes(const bitplan_port& port, std::size_t batch, std::size_t element, std::size_t bytes,
                 const char* kind) {
  // Both are bounded: the batch has 32 bits, the elements too.
  if (const std::size_t expected = batch * port.elements * element; bytes != expected)
    throw bitplan::InputError(text(kind, " '", port.name, "' has ", bytes, " bytes; a batch of ", batch, " x ",
                                   port.elements, " elements of ", element, " bytes has ", expected));
}

bitplan::RawArray raw_array(const bitplan_port& port, std::size_t batch, const bitplan_input& input) {
  if (input.type != BITPLAN_U8 && input.type != BITPLAN_F32)
    throw bitplan::InputError(
        text("input '", port.name, "' is of type ", input.type, "; expected BITPLAN_U8 or BITPLAN_F32"));
  const bool bytes = input.type == BITPLAN_U8;
  check_bytes(port, batch, bytes ? 1 : sizeof(float), input.bytes, "input");
  if (!input.data) throw ArgumentError(text("input '", port.name, "': data is NULL"));
  return {input.data, bytes ? bitplan::Format::u8 : bitplan::Format::f32};
}

}  // namespace

uint32_t bitplan_api_version() noexcept { return BITPLAN_API_VERSION; }

const char* bitplan_last_error() noexcept { return last_error.c_str(); }

bitplan_status bitplan_load_file(const char* path, const bitplan_options* options, bitplan_runtime** runtime) noexcept {
  return load_with(options, runtime, [&](const Options& read) {
    require(path, "path");
    return bitplan::load_runtime(path, read.threads, read.isa);
  });
}

bitplan_status bitplan_load_memory(const void* data, size_t bytes, const bitplan_options* options,
                                   bitplan_runtime** runtime) noexcept {
  return load_with(options, runtime, [&](const Options& read) {
    require(data, "data");
    const bitplan::Bytes file(static_cast<const std::uint8_t*>(data), bytes);
    return std::make_unique<Runtime>(file, read.threads, read.isa);
  });
}

void bitplan_free(bitplan_runtime* runtime) noexcept { delete runtime; }

const bitplan_info* bitplan_describe(const bitplan_runtime* runtime) noexcept {
  const bitplan_status status = guarded([&] { require(runtime, "runtime"); });
  return status == BITPLAN_OK ? &runtime->info : nullptr;
}

const bitplan_port* bitplan_input_port(const bitplan_runtime* runtime, size_t index) noexcept {
  const bitplan_port* port = nullptr;
  static_cast<void>(guarded([&] {
    require(runtime, "runtime");
    port = port_of(runtime->inputs, index, "input");
  }));
  return port;
}

const bitplan_port* bitplan_output_port(const bitplan_runtime* runtime, size_t index) noexcept {
  const bitplan_port* port = nullptr;
  static_cast<void>(guarded([&] {
    require(runtime, "runtime");
    port = port_of(runtime->outputs, index, "output");
  }));
  return port;
}

bitplan_status bitplan_run(bitplan_runtime* runtime, size_t batch, const bitplan_input* inputs, size_t input_count,
                           const bitplan_output* outputs, size_t output_count) noexcept {
  return guarded([&] {
    require(runtime, "runtime");
    require(inputs, "inputs");
    require(outputs, "outputs");
    const Runtime::Lease context = runtime->runtime->acquire(batch);  // refuses an impossible batch
    check_count(input_count, runtime->inputs.size(), "input");
    check_count(output_count, runtime->outputs.size(), "output");
    std::vector<bitplan::RawArray> arrays;
    for (std::size_t i = 0; i < input_count; ++i) arrays.push_back(raw_array(runtime->inputs[i], batch, inputs[i]));
    std::vector<float*> results;
    for (std::size_t i = 0; i < output_count; ++i) {
      check_bytes(runtime->outputs[i], batch, sizeof(float), outputs[i].bytes, "output");
      if (!outputs[i].data) throw ArgumentError(text("output '", runtime->outputs[i].name, "': data is NULL"));
      results.push_back(outputs[i].data);
    }
    runtime->runtime->run(*context, arrays, batch, results);
  });
}
