#include "coded_levels.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <vector>

#include "bytes.h"
#include "require.h"

namespace bitplan {
namespace {

constexpr unsigned kPrecision = 12, kSlots = 1u << kPrecision;
constexpr std::uint32_t kLowest = 1u << 16;  // of a state
constexpr std::size_t kMaxLanes = 32;
constexpr unsigned kActivities = 63;
constexpr int kCap = 15, kUnit = 256;  // a running mean is at most kCap * kUnit
constexpr unsigned kAbsent = 255;
constexpr std::array<std::uint64_t, 8> kPowers = {2147483648u, 2341847524u, 2553802834u, 2784941738u,
                                                  3037000500u, 3311872529u, 3611622603u, 3938502376u};

using Logarithms = std::array<std::uint8_t, kCap * kUnit + 1>;
constexpr Logarithms make_logarithms() {
  Logarithms logarithms{};
  for (unsigned mean = 0; mean < logarithms.size(); ++mean) {
    const unsigned value = mean + 16, octave = unsigned(std::bit_width(value)) - 1;
    logarithms[mean] = std::uint8_t(4 * (octave - 4) + (value >> (octave - 2) & 3));
  }
  return logarithms;
}
constexpr Logarithms kLogarithms = make_logarithms();

// By level as a byte: what it counts as in a running mean.
constexpr std::array<int, 256> make_counts_as() {
  std::array<int, 256> counts{};
  for (int level = -128; level < 128; ++level)
    counts[std::uint8_t(level)] = std::min(level < 0 ? -level : level, kCap) * kUnit;
  return counts;
}
constexpr std::array<int, 256> kCountsAs = make_counts_as();

int row_gain(std::size_t column) { return int(65536 / std::min<std::size_t>(column + 5, 64)); }
int column_gain(std::size_t seen, std::size_t rows) {
  return int(65536 / (std::min<std::size_t>(seen + 4, 64) + rows));
}

// One number behind the other; throws where they end too early.
class Reader {
 public:
  explicit Reader(Bytes data) : at_(data.data()), end_(at_ + data.size()) {}

  std::size_t left() const { return std::size_t(end_ - at_); }
  const std::uint8_t* position() const { return at_; }
  template <typename T>
  T take(const char* what) {
    require(left() >= sizeof(T), text("its coded levels end inside ", what));
    const T value = load<T>(at_);
    at_ += sizeof(T);
    return value;
  }

 private:
  const std::uint8_t *at_, *end_;
};

// Lengths by magnitude, in eighths of a bit: a law of up to three numbers.
void follow_law(Reader& reader, unsigned top, std::uint8_t* lengths) {
  std::array<std::uint8_t, 3> given{};
  for (unsigned i = 0; i < std::min(top, 3u); ++i) given[i] = reader.take<std::uint8_t>("its tables");
  const int slope = given[1], curvature = std::int8_t(given[2]);
  lengths[0] = std::uint8_t(std::min<unsigned>(given[0], kAbsent - 1));
  int longest = 0;
  for (int step = 0; step < int(top); ++step) {
    const int length = 128 + ((step * (4 * slope + curvature * step)) >> 5);
    longest = std::max(longest, std::clamp(length, 0, int(kAbsent) - 1));
    lengths[step + 1] = std::uint8_t(longest);
  }
}

// What a slot decodes to: a level (8 bits), the slot's number within it (12 bits), its frequency less one (12 bits).
std::uint32_t entry_of(int level, unsigned within, unsigned frequency) {
  return std::uint8_t(level) | within << 8 | (frequency - 1) << 20;
}

void fill_slots(const std::uint8_t* lengths, unsigned top, std::uint32_t* slots) {
  std::array<std::uint64_t, 128> frequency{};
  std::uint64_t total = 0;
  unsigned present = 0;
  for (unsigned m = 0; m <= top; ++m) {
    if (lengths[m] == kAbsent) continue;
    frequency[m] = kPowers[-lengths[m] & 7u] >> ((lengths[m] + 7u) >> 3);
    total += m == 0 ? frequency[m] : 2 * frequency[m];
    present += m > 0;
  }
  total = std::max<std::uint64_t>(total, 1);
  unsigned rest = kSlots;
  for (unsigned m = 1; m <= top; ++m) {
    frequency[m] = lengths[m] == kAbsent ? 0 : frequency[m] * (kSlots - 1 - 2 * present) / total + 1;
    rest -= 2 * unsigned(frequency[m]);
  }
  frequency[0] = rest;
  for (unsigned m = 0; m <= top; ++m)
    for (const int level : {int(m), -int(m)}) {
      for (unsigned i = 0; i < frequency[m]; ++i) *slots++ = entry_of(level, i, unsigned(frequency[m]));
      if (m == 0) break;
    }
}

struct Model {
  std::size_t lanes = 1;
  int start = 0;                                   // the mean that activities start from
  std::vector<std::uint32_t> slots;                // [classes][kSlots]
  std::array<std::uint32_t, kActivities> first{};  // by activity, where its class begins in `slots`

  bool one_class() const { return slots.size() == kSlots; }
};

Model read_model(Reader& reader, unsigned kinds, int top) {
  Model model;
  const unsigned classes = (kinds >> 3 & 7) + 1;
  model.lanes = std::size_t(1) << (kinds & 7);
  require(kinds >= 128 && model.lanes <= kMaxLanes, text("its levels are coded by an unknown model, ", kinds));
  const unsigned largest = reader.take<std::uint8_t>("their head");
  require(largest >= 1 && int(largest) <= top, text("its largest level is ", largest, "; expected 1 to ", top));
  if (classes > 1) {
    model.start = reader.take<std::uint16_t>("their head");
    require(model.start <= kCap * kUnit, text("its mean level is ", model.start, " / 256; expected at most 15"));
    unsigned activity = 0;
    for (unsigned number = 1; number < classes; ++number) {
      const unsigned threshold = reader.take<std::uint8_t>("their head");
      require(threshold > activity && threshold < kActivities, "its thresholds do not ascend within 1 to 62");
      activity = threshold;
      for (unsigned above = threshold; above < kActivities; ++above) model.first[above] = number * kSlots;
    }
  }
  model.slots.resize(classes * kSlots);
  for (unsigned number = 0; number < classes; ++number) {
    std::array<std::uint8_t, 128> lengths{};
    if (kinds & 64)
      for (unsigned m = 0; m <= largest; ++m) lengths[m] = reader.take<std::uint8_t>("their tables");
    else
      follow_law(reader, largest, lengths.data());
    fill_slots(lengths.data(), largest, model.slots.data() + number * kSlots);
  }
  return model;
}

class Decoder {
 public:
  Decoder(const Model& model, Reader reader, std::size_t columns)
      : model_(model), columns_(columns), column_means_(columns, model.start) {
    for (std::size_t lane = 0; lane < model.lanes; ++lane) {
      states_[lane] = reader.take<std::uint32_t>("their states");
      require(states_[lane] >= kLowest, text("a state of its coded levels is ", states_[lane], "; at least 2^16"));
    }
    at_ = reader.position();
    end_ = at_ + reader.left();
  }

  void run(std::size_t rows, std::int8_t* levels) {
    for (std::size_t first = 0; first < rows; first += model_.lanes) {
      const std::size_t active = std::min(model_.lanes, rows - first);
      if (model_.one_class())
        decode_group<false>(first, active, levels + first * columns_);
      else
        decode_group<true>(first, active, levels + first * columns_);
    }
    for (std::size_t lane = 0; lane < model_.lanes; ++lane)
      require(states_[lane] == kLowest, "the last state of its coded levels is not 2^16");
    require(std::all_of(at_, end_, [](std::uint8_t byte) { return byte == 0; }),
            "there are bytes behind its coded levels");
  }

 private:
  // Rows [first, first + active), column by column. What changes from level to level is held in variables of its own:
  // the compiler then knows that writing a level, a byte, does not change it.
  template <bool contexts>
  void decode_group(std::size_t first, std::size_t active, std::int8_t* levels) {
    std::array<std::uint32_t, kMaxLanes> states = states_;
    std::array<int, kMaxLanes> means;
    const std::uint8_t* at = at_;
    const std::uint32_t* const slots = model_.slots.data();
    means.fill(model_.start);

    const int by_column = column_gain(first, active);
    for (std::size_t k = 0; k < columns_; ++k) {
      const std::uint32_t* const first_slot =
          contexts ? &model_.first[kLogarithms[std::size_t(column_means_[k])]] : nullptr;
      const bool enough = std::size_t(end_ - at) >= 2 * active;  // words for all lanes, whatever they decode
      const int by_row = row_gain(k);
      int sum = 0;
      const auto decode = [&]<bool kEnough>() {
        for (std::size_t lane = 0; lane < active; ++lane) {
          std::uint32_t state = states[lane];
          const std::uint32_t from = contexts ? first_slot[kLogarithms[std::size_t(means[lane])]] : 0;
          const std::uint32_t entry = slots[from + state % kSlots];
          state = ((entry >> 20) + 1) * (state >> kPrecision) + (entry >> 8 & (kSlots - 1));
          if (kEnough) {  // without a branch on the state, as it could not be foreseen
            const std::uint32_t longer = state << 16 | load<std::uint16_t>(at);
            const std::uint32_t low = state < kLowest;
            state = (longer & -low) | (state & (low - 1));
            at += 2 * low;
          } else if (state < kLowest) {
            require(end_ - at >= 2, "the words of its coded levels end too early");
            state = state << 16 | load<std::uint16_t>(at);
            at += 2;
          }
          states[lane] = state;
          levels[lane * columns_ + k] = std::int8_t(entry);
          if (contexts) {
            const int magnitude = kCountsAs[entry & 255];
            means[lane] += ((magnitude - means[lane]) * by_row) >> 16;
            sum += magnitude;
          }
        }
      };
      if (enough)
        decode.template operator()<true>();
      else
        decode.template operator()<false>();
      if (!contexts) continue;
      const std::int64_t change = std::int64_t(sum) - std::int64_t(active) * column_means_[k];
      column_means_[k] += int(change * by_column >> 16);
    }
    states_ = states;
    at_ = at;
  }

  const Model& model_;
  std::size_t columns_;
  std::array<std::uint32_t, kMaxLanes> states_{};
  std::vector<int> column_means_;
  const std::uint8_t *at_ = nullptr, *end_ = nullptr;
};

}  // namespace

void decode_levels(Bytes data, std::size_t rows, std::size_t columns, int top, std::int8_t* levels) {
  Reader reader(data);
  const unsigned kinds = reader.take<std::uint8_t>("their head");
  if (kinds == 0) {
    require(std::all_of(data.begin(), data.end(), [](std::uint8_t byte) { return byte == 0; }),
            "there are bytes behind its levels, which are all zero");
    std::memset(levels, 0, rows * columns);
    return;
  }
  const Model model = read_model(reader, kinds, top);
  require(model.lanes <= rows, text("its levels are coded in ", model.lanes, " lanes, more than its ", rows, " rows"));
  Decoder(model, reader, columns).run(rows, levels);
}

void rows_to_stream(const LayerShape& shape, const std::int8_t* rows, std::int8_t* stream) {
  const std::size_t k = shape.reduction(), outputs = shape.group_outputs();
  if (shape.depthwise()) {
    for (std::size_t tap = 0; tap < k; ++tap)
      for (std::size_t channel = 0; channel < shape.out; ++channel) *stream++ = rows[channel * k + tap];
    return;
  }
  for (std::size_t group = 0; group < shape.groups; ++group)
    for (std::size_t block = 0; block < outputs; block += kBlock) {
      const std::int8_t* const first = rows + (group * outputs + block) * k;
      const std::size_t width = std::min(kBlock, outputs - block);
      for (std::size_t step = 0; step < k; step += kStep) {
        const std::size_t size = std::min(kStep, k - step);
        for (std::size_t column = 0; column < width; ++column, stream += size)
          std::memcpy(stream, first + column * k + step, size);
      }
    }
}

}  // namespace bitplan
