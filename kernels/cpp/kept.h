// The weights that apb keeps out of its binary code: how the file holds them, and lists of them as the kernels want.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "artifact.h"
#include "kernel_table.h"

namespace bitplan {

// Where a code of the stream belongs (bitplan/encodings/order.py).
struct Position {
  std::size_t channel, k;
};
Position position_of(const LayerShape& shape, std::size_t index);

// Positions of k kept weights among n in the stream, ascending, from their Elias-Fano code. Throws FormatError.
std::vector<std::uint64_t> read_elias_fano(Bytes data, std::size_t k, std::size_t n);

struct KeptWeight {
  std::uint64_t index;  // in the stream
  std::int8_t level;
};

// What the file holds behind the codes of n weights: unit, kept levels, their positions (ascending). Of levels of fewer
// than 8 bits it holds the magnitudes, and the signs are those of their codes. Throws FormatError.
struct StoredKept {
  int unit = 1;
  std::vector<KeptWeight> weights;
};
StoredKept read_kept(Bytes data, std::size_t kept, std::size_t n, std::size_t bits, Bytes codes);

// Kernel bytes: by panel of kMaxBlocks blocks, at ascending places of the panel [block][k_steps][16][4].
struct KeptLevels {
  std::vector<std::uint32_t> start;  // [groups * panels of a group + 1]
  std::vector<std::uint32_t> place;
  std::vector<std::int8_t> level;

  std::size_t bytes() const { return 4 * (start.size() + place.size()) + level.size(); }
  // Writes the kept levels into a part of panel `number`: the bytes [from, from + size) of it.
  void scatter(std::size_t number, std::size_t from, std::size_t size, std::int8_t* part) const;
};
KeptLevels by_panel(const LayerShape& shape, const std::vector<KeptWeight>& kept);

// Kernel bytes where the table has add_kept_bytes: by panel of kMaxBlocks blocks, then by channel and sign, in as many
// bytes as KeptLevels takes. Runs are numbered as KeptBytes numbers them: run 2 o + (0 or 1) of channel o of the panel.
struct KeptPanels {
  static constexpr std::size_t kRuns = 2 * kBlock * kMaxBlocks;

  std::vector<std::uint32_t> start;  // [groups * panels of a group + 1]
  std::vector<std::uint32_t> place;  // run << kColumnBits | k, ascending within a panel
  std::vector<std::uint8_t> magnitude;

  std::size_t bytes() const { return 4 * (start.size() + place.size()) + magnitude.size(); }
  // Writes where the runs of panel `number` begin, run_start[kRuns + 1].
  void find_runs(std::size_t number, std::uint32_t* run_start) const;
};
// The codes of kept weights become the signs of their levels, so that no residual exceeds 63. k < 2^kColumnBits.
KeptPanels by_run(const LayerShape& shape, const StoredKept& kept, std::uint8_t* codes);

// Kernels bits and lookup: what is added to unit * sign, by channel.
struct KeptResiduals {
  std::vector<std::uint32_t> row_start, k;
  std::vector<std::int16_t> residual;

  std::size_t bytes() const { return 4 * (row_start.size() + k.size()) + 2 * residual.size(); }
  // The lists of the channels from `first` on.
  Kept from(std::size_t first) const { return {row_start.data() + first, k.data(), residual.data()}; }
};
// `positive(i)`: whether code i of the stream stands for +unit.
template <typename Positive>
KeptResiduals by_channel(const LayerShape& shape, const StoredKept& kept, const Positive& positive) {
  const std::size_t inputs = shape.in / shape.groups, run = 32 * words_of(inputs);
  KeptResiduals lists;
  lists.row_start.assign(shape.out + 1, 0);
  for (const KeptWeight& weight : kept.weights) ++lists.row_start[position_of(shape, weight.index).channel + 1];
  for (std::size_t o = 0; o < shape.out; ++o) lists.row_start[o + 1] += lists.row_start[o];
  lists.k.resize(kept.weights.size());
  lists.residual.resize(kept.weights.size());
  std::vector<std::uint32_t> next(lists.row_start.begin(), lists.row_start.end() - 1);
  for (const KeptWeight& weight : kept.weights) {  // of one channel, the stream holds k in ascending order
    const auto [channel, k] = position_of(shape, weight.index);
    const std::uint32_t entry = next[channel]++;
    lists.k[entry] = std::uint32_t(k / inputs * run + k % inputs);
    lists.residual[entry] = std::int16_t(weight.level - (positive(weight.index) ? kept.unit : -kept.unit));
  }
  return lists;
}

}  // namespace bitplan
