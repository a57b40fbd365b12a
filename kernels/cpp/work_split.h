// How a layer's work, rows x output channels, is cut: into parts for the threads, a part into tiles and panels.
#pragma once

#include <algorithm>
#include <cstddef>

#include "artifact.h"
#include "kernel_table.h"
#include "thread_pool.h"

namespace bitplan {

struct Span {
  std::size_t begin, end;

  std::size_t size() const { return end - begin; }
  // Part i of n parts whose sizes differ by one at most.
  Span part(std::size_t i, std::size_t n) const { return {begin + size() * i / n, begin + size() * (i + 1) / n}; }
};

// Up to kMaxBlocks blocks of one group's output channels.
struct Panel {
  std::size_t group, first_block, blocks, first_channel, channels;
};

// The output channels in units of 32 within their group: words of planes are never shared, but by groups.
class Panels {
 public:
  explicit Panels(const LayerShape& shape)
      : groups_(shape.groups),
        outputs_(shape.group_outputs()),
        units_of_group_((outputs_ + kUnitChannels - 1) / kUnitChannels) {}

  std::size_t units() const { return groups_ * units_of_group_; }

  // Calls body(panel) for the panels of some units; a panel lies within a multiple of kMaxBlocks blocks.
  template <typename Body>
  void for_each(Span units, const Body& body) const {
    while (units.size() > 0) {
      const std::size_t group = units.begin / units_of_group_, unit = units.begin % units_of_group_;
      const std::size_t count = std::min({kUnitsOfPanel - unit % kUnitsOfPanel, units.size(), units_of_group_ - unit});
      const std::size_t first = unit * kUnitChannels, channels = std::min(count * kUnitChannels, outputs_ - first);
      body(Panel{group, first / kBlock, (channels + kBlock - 1) / kBlock, group * outputs_ + first, channels});
      units.begin += count;
    }
  }

  static constexpr std::size_t kUnitChannels = 32;

 private:
  static constexpr std::size_t kUnitsOfPanel = kMaxBlocks * kBlock / kUnitChannels;
  std::size_t groups_, outputs_, units_of_group_;
};

struct WorkSplit {
  std::size_t row_parts, unit_parts;
};

// The split that should take the least time. `weight_rows`: what it costs to fetch (and decode) the weights of a part,
// counted in rows that could be multiplied meanwhile.
WorkSplit split_work(std::size_t rows, std::size_t units, std::size_t threads, std::size_t weight_rows);

// Calls body(rows, units, thread) for all parts.
template <typename Body>
void share_work(ThreadPool& pool, std::size_t rows, std::size_t units, std::size_t weight_rows, const Body& body) {
  const WorkSplit split = split_work(rows, units, pool.threads(), weight_rows);
  pool.run(split.row_parts * split.unit_parts, [&](std::size_t task, std::size_t thread) {
    body(Span{0, rows}.part(task / split.unit_parts, split.row_parts),
         Span{0, units}.part(task % split.unit_parts, split.unit_parts), thread);
  });
}

// Tiles of at most kMaxRows rows.
inline std::size_t tile_count(Span rows) { return (rows.size() + kMaxRows - 1) / kMaxRows; }

template <typename Body>
void for_each_tile(Span rows, const Body& body) {
  const std::size_t tiles = tile_count(rows);
  for (std::size_t tile = 0; tile < tiles; ++tile) body(rows.part(tile, tiles));
}

}  // namespace bitplan
