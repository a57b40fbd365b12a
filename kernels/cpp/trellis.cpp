// The Python module bitplan.encodings._trellis: the search for the best code of xor layers
// (bitplan/encodings/trellis.py).
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <vector>

namespace py = pybind11;

namespace bitplan {
namespace {

constexpr unsigned kRegisterBits = 12;
constexpr std::size_t kStates = std::size_t(1) << kRegisterBits;
constexpr std::size_t kStepWeights = 4;
constexpr std::size_t kSegment = 1024;  // steps decided at once
constexpr std::size_t kOverlap = 128;   // steps beyond them that are looked at: paths that differ so long have merged
constexpr std::size_t kRescale = 64;    // steps after which the totals' least is taken off them
constexpr float kFar = 1e30f;

struct Input {
  const float* costs;          // [steps][4][3]: of the levels -1, 0 and 1 of each weight
  const std::int64_t* shifts;  // [steps]: bits that the register moves on before the step
  const std::uint8_t* table;   // [kStates]
};

// Costs of the 256 bytes of two-bit codes; the fourth code, which the table never holds, costs nothing.
void byte_costs(const float* costs, float* bytes) {
  float weight[kStepWeights][4] = {};
  for (std::size_t j = 0; j < kStepWeights; ++j) std::copy_n(costs + 3 * j, 3, weight[j]);
  for (unsigned byte = 0; byte < 256; ++byte)
    bytes[byte] = (weight[3][byte >> 6] + weight[2][byte >> 4 & 3]) + (weight[1][byte >> 2 & 3] + weight[0][byte & 3]);
}

// The best path through one segment after another.
class Search {
 public:
  Search() : total_(kStates), next_(kStates) {}

  void run(const Input& input, std::size_t steps, std::int64_t* contents) {
    std::size_t entry = kStates;  // any
    for (std::size_t begin = 0; begin < steps;) {
      const std::size_t end = std::min(begin + kSegment + kOverlap, steps);
      const std::size_t decided = end == steps ? end : begin + kSegment;
      forward(input, begin, end, entry);
      backward(input, begin, end, decided, contents);
      entry = std::size_t(contents[decided - 1]);
      begin = decided;
    }
  }

 private:
  void forward(const Input& input, std::size_t begin, std::size_t end, std::size_t entry) {
    std::fill(total_.begin(), total_.end(), entry == kStates ? 0.0f : kFar);
    if (entry != kStates) total_[entry] = 0;
    chosen_.clear();
    for (std::size_t step = begin; step < end; ++step) {
      std::size_t states = kStates;
      for (std::int64_t bit = 0; bit < input.shifts[step]; ++bit) states = drop_bit(states);
      float costs[256];
      byte_costs(input.costs + 3 * kStepWeights * step, costs);
      for (std::size_t high = 0; high < kStates; high += states)
        for (std::size_t low = 0; low < states; ++low) next_[high + low] = costs[input.table[high + low]] + total_[low];
      total_.swap(next_);
      if ((step - begin) % kRescale == 0) {
        const float least = *std::min_element(total_.begin(), total_.end());
        for (float& total : total_) total -= least;
      }
    }
  }

  // One bit leaves the register: of the two contents that differ in it the cheaper one stays.
  std::size_t drop_bit(std::size_t states) {
    const std::size_t half = states / 2, at = chosen_.size();
    chosen_.resize(at + half);
    std::uint8_t* const odd_is_cheaper = chosen_.data() + at;
    const float* const total = total_.data();
    float* const next = next_.data();
    for (std::size_t state = 0; state < half; ++state) {
      const float even = total[2 * state], odd = total[2 * state + 1];
      odd_is_cheaper[state] = odd < even;
      next[state] = odd < even ? odd : even;
    }
    total_.swap(next_);
    return half;
  }

  void backward(const Input& input, std::size_t begin, std::size_t end, std::size_t decided, std::int64_t* contents) {
    auto state = std::size_t(std::min_element(total_.begin(), total_.end()) - total_.begin());
    std::size_t at = chosen_.size();
    for (std::size_t step = end; step-- > begin;) {
      if (step < decided) contents[step] = std::int64_t(state);
      const auto bits = unsigned(input.shifts[step]);
      state &= (kStates >> bits) - 1;
      for (unsigned bit = bits; bit-- > 0;) {
        at -= kStates >> (bit + 1);
        state = 2 * state + chosen_[at + state];
      }
    }
  }

  std::vector<float> total_, next_;
  std::vector<std::uint8_t> chosen_;  // by step and dropped bit: by state, whether the odd content was cheaper
};

template <typename T>
using Array = py::array_t<T, py::array::c_style>;

py::array_t<std::int64_t> nearest_registers(const Array<float>& costs, const Array<std::int64_t>& shifts,
                                            const Array<std::uint8_t>& table) {
  const auto steps = std::size_t(shifts.size());
  if (std::size_t(costs.size()) != 3 * kStepWeights * steps || std::size_t(table.size()) != kStates)
    throw std::invalid_argument("expected 12 costs for each shift, and a table of 4096 bytes");
  const std::int64_t* const shift = shifts.data();
  if (std::any_of(shift, shift + steps, [](std::int64_t bits) { return bits < 0 || bits > kRegisterBits; }))
    throw std::invalid_argument("a shift is outside of 0 to 12");
  py::array_t<std::int64_t> contents{py::ssize_t(steps)};
  const Input input{costs.data(), shift, table.data()};
  std::int64_t* const target = contents.mutable_data();
  {
    const py::gil_scoped_release unlocked;
    Search().run(input, steps, target);
  }
  return contents;
}

}  // namespace

PYBIND11_MODULE(_trellis, module) {
  module.doc() = "The compiled part of bitplan.encodings.trellis.";
  module.def("nearest_registers", nearest_registers, py::arg("costs"), py::arg("shifts"), py::arg("table"));
  module.attr("version") = BITPLAN_VERSION;
  module.attr("interface") = BITPLAN_INTERFACE;
}

}  // namespace bitplan
