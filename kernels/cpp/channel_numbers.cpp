#include "channel_numbers.h"

#include <cmath>

#include "bytes.h"
#include "require.h"

namespace bitplan {
namespace {

constexpr std::size_t kUnitBytes = 8;  // the f32 units of scale and bias

// Encodings that are for small files hold numbers of eight bits there, all others of sixteen.
bool short_floats(const CodecInfo& info) {
  return info.storage == Storage::entropy || info.storage == Storage::xor_network;
}

// unit x ratio, ratio by ratio.
std::vector<float> read_halves(Bytes data, float unit, std::size_t out, const char* what) {
  std::vector<float> values(out);
  for (std::size_t i = 0; i < out; ++i)
    values[i] = finite(unit * half_to_float(load<std::uint16_t>(data.data() + 2 * i)), what);
  return values;
}

// What a code without its sign stands for: exact, since it has at most eight significant bits.
float magnitude(unsigned code, unsigned mantissa) {
  const unsigned exponent = code >> mantissa, fraction = code & ((1u << mantissa) - 1);
  if (exponent == 0) return float(fraction);
  return std::ldexp(float((1u << mantissa) + fraction), int(exponent) - 1);
}

std::vector<float> read_short_floats(Bytes data, float unit, std::size_t out, unsigned mantissa, bool with_sign,
                                     const char* what) {
  std::vector<float> values(out);
  for (std::size_t i = 0; i < out; ++i) {
    const bool negative = with_sign && data[i] >= 128;
    values[i] = finite(unit * magnitude(with_sign ? data[i] % 128 : data[i], mantissa), what);
    if (negative) values[i] = -values[i];
  }
  return values;
}

}  // namespace

std::size_t channel_number_bytes(const CodecInfo& info, std::size_t out) {
  return kUnitBytes + (short_floats(info) ? 1 + 2 * out : 4 * out);
}

ChannelNumbers read_channel_numbers(const CodecInfo& info, Bytes data, std::size_t out) {
  const float scale_unit = finite(load<float>(data.data()), "the unit of the scales");
  const float bias_unit = finite(load<float>(data.data() + 4), "the unit of the biases");
  if (!short_floats(info))
    return {read_halves(data.subspan(kUnitBytes), scale_unit, out, "a scale"),
            read_halves(data.subspan(kUnitBytes + 2 * out), bias_unit, out, "a bias")};
  const unsigned scales = data[kUnitBytes] % 16, biases = data[kUnitBytes] / 16;
  require(scales >= 3 && scales <= 7 && biases >= 2 && biases <= 6,
          text("its scales have a mantissa of ", scales, " bits and its biases one of ", biases,
               "; expected 3 to 7 and 2 to 6"));
  const Bytes codes = data.subspan(kUnitBytes + 1);
  return {read_short_floats(codes, scale_unit, out, scales, false, "a scale"),
          read_short_floats(codes.subspan(out), bias_unit, out, biases, true, "a bias")};
}

}  // namespace bitplan
