#include "kept.h"

#include <algorithm>
#include <cstdlib>

#include "bits.h"
#include "codec.h"
#include "error.h"

namespace bitplan {
namespace {

constexpr int kMaxLevel = 63;

}  // namespace

std::vector<std::uint64_t> read_elias_fano(Bytes data, std::size_t k, std::size_t n) {
  std::vector<std::uint64_t> positions;
  if (k == 0) return positions;
  const std::size_t shift = elias_fano_shift(k, n), low_bytes = (k * shift + 7) / 8;
  const Bytes high = data.subspan(low_bytes);
  positions.reserve(k);
  for (std::size_t bit = 0; bit < 8 * high.size(); ++bit) {
    if (!bit_at(high.data(), bit)) continue;
    const std::size_t i = positions.size();
    if (i == k) throw FormatError(text("the positions of kept weights hold more than the ", k, " announced"));
    const std::uint64_t position = (std::uint64_t(bit - i) << shift) + bits_at(data.data(), i * shift, shift);
    if (position >= n || (i > 0 && position <= positions.back()))
      throw FormatError("the positions of kept weights are not ascending or leave the layer");
    positions.push_back(position);
  }
  if (positions.size() != k)
    throw FormatError(
        text("the positions of kept weights hold ", positions.size(), " entries; ", k, " were announced"));
  return positions;
}

Position position_of(const LayerShape& shape, std::size_t index) {
  if (shape.depthwise()) return {index % shape.out, index / shape.out};
  const std::size_t k = shape.reduction(), outputs = shape.group_outputs(), whole = k / kStep * kStep;
  const std::size_t group = index / (outputs * k), in_group = index % (outputs * k);
  const std::size_t block = in_group / (kBlock * k), in_block = in_group % (kBlock * k);
  const std::size_t width = std::min(kBlock, outputs - block * kBlock), first = group * outputs + block * kBlock;
  if (in_block < width * whole) {
    const std::size_t in_step = in_block % (width * kStep);
    return {first + in_step / kStep, in_block / (width * kStep) * kStep + in_step % kStep};
  }
  const std::size_t rest = in_block - width * whole;
  return {first + rest / (k - whole), whole + rest % (k - whole)};
}

StoredKept read_kept(Bytes data, std::size_t kept, std::size_t n, std::size_t bits, Bytes codes) {
  const int top = bits == 8 ? kMaxLevel : (1 << bits) - 1;
  StoredKept stored;
  stored.unit = data[0];
  if (stored.unit < 1 || stored.unit > top)
    throw FormatError(text("the unit of its levels is ", stored.unit, "; expected 1 to ", top));
  const std::size_t level_bytes = packed_size(kept, bits);
  const Bytes levels = data.subspan(1, level_bytes);
  const std::vector<std::uint64_t> positions =
      read_elias_fano(data.subspan(1 + level_bytes, elias_fano_bytes(kept, n)), kept, n);
  stored.weights.reserve(kept);
  for (std::size_t i = 0; i < kept; ++i) {
    const std::uint64_t at = positions[i];
    int level = 0;
    if (bits == 8) {
      level = std::int8_t(levels[i]);
    } else {
      level = int(bits_at(levels.data(), i * bits, bits));
      if (!bit_at(codes.data(), at)) level = -level;
    }
    if (level < -top || level > top)
      throw FormatError(text("the level of a kept weight is ", level, "; expected -", top, " to ", top));
    stored.weights.push_back({at, std::int8_t(level)});
  }
  return stored;
}

void KeptLevels::scatter(std::size_t number, std::size_t from, std::size_t size, std::int8_t* part) const {
  const auto begin = place.begin() + start[number], end = place.begin() + start[number + 1];
  for (auto at = std::lower_bound(begin, end, from); at != end && *at < from + size; ++at)
    part[*at - from] = level[std::size_t(at - place.begin())];
}

KeptLevels by_panel(const LayerShape& shape, const std::vector<KeptWeight>& kept) {
  constexpr std::size_t kChannels = kBlock * kMaxBlocks;
  const std::size_t outputs = shape.group_outputs(), panels = (outputs + kChannels - 1) / kChannels;
  const std::size_t k_steps = (shape.reduction() + kStep - 1) / kStep;
  KeptLevels lists;
  lists.start.assign(shape.groups * panels + 1, 0);
  for (const KeptWeight& weight : kept) {  // the stream's order is that of groups, panels and places
    const auto [channel, k] = position_of(shape, weight.index);
    const std::size_t in_group = channel % outputs, in_panel = in_group % kChannels;
    ++lists.start[channel / outputs * panels + in_group / kChannels + 1];
    const std::size_t step = in_panel / kBlock * k_steps + k / kStep;
    lists.place.push_back(std::uint32_t((step * kBlock + in_panel % kBlock) * kStep + k % kStep));
    lists.level.push_back(weight.level);
  }
  for (std::size_t i = 0; i + 1 < lists.start.size(); ++i) lists.start[i + 1] += lists.start[i];
  return lists;
}

void KeptPanels::find_runs(std::size_t number, std::uint32_t* run_start) const {
  std::fill_n(run_start, kRuns + 1, start[number]);
  for (std::uint32_t i = start[number]; i < start[number + 1]; ++i) run_start[(place[i] >> kColumnBits) + 1] = i + 1;
  for (std::size_t run = 0; run < kRuns; ++run) run_start[run + 1] = std::max(run_start[run + 1], run_start[run]);
}

KeptPanels by_run(const LayerShape& shape, const StoredKept& kept, std::uint8_t* codes) {
  constexpr std::size_t kChannels = kBlock * kMaxBlocks;
  const std::size_t outputs = shape.group_outputs(), panels = (outputs + kChannels - 1) / kChannels;
  struct Entry {
    std::uint32_t place;
    std::uint8_t magnitude;
  };
  std::vector<Entry> entries;
  entries.reserve(kept.weights.size());
  KeptPanels lists;
  lists.start.assign(shape.groups * panels + 1, 0);
  for (const KeptWeight& weight : kept.weights) {  // the stream's order is that of groups and panels
    const auto [channel, k] = position_of(shape, weight.index);
    const std::size_t in_group = channel % outputs;
    ++lists.start[channel / outputs * panels + in_group / kChannels + 1];
    const bool positive = weight.level >= 0;
    std::uint8_t& byte = codes[weight.index / 8];
    byte = std::uint8_t((byte & ~(1u << weight.index % 8)) | unsigned(positive) << weight.index % 8);
    const int residual = weight.level - (positive ? kept.unit : -kept.unit);
    const std::size_t run = 2 * (in_group % kChannels) + (residual >= 0);
    entries.push_back({std::uint32_t(run << kColumnBits | k), std::uint8_t(std::abs(residual))});
  }
  for (std::size_t i = 0; i + 1 < lists.start.size(); ++i) {
    lists.start[i + 1] += lists.start[i];
    std::sort(entries.begin() + lists.start[i], entries.begin() + lists.start[i + 1],
              [](const Entry& a, const Entry& b) { return a.place < b.place; });
  }
  lists.place.reserve(entries.size());
  lists.magnitude.reserve(entries.size());
  for (const Entry& entry : entries) {
    lists.place.push_back(entry.place);
    lists.magnitude.push_back(entry.magnitude);
  }
  return lists;
}

}  // namespace bitplan
