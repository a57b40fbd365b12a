#include "work_split.h"

#include <limits>

#include "step.h"

namespace bitplan {
namespace {

// Pointers to a row's inputs, or copies of them, cost about this fraction of its products with one unit of channels.
constexpr std::size_t kRowFraction = 8;
// More parts than threads even out what else runs on the machine, where a part keeps this many times `weight_rows`.
constexpr std::size_t kLeastRows = 32, kMostRounds = 4;

}  // namespace

WorkSplit split_work(std::size_t rows, std::size_t units, std::size_t threads, std::size_t weight_rows) {
  if (threads == 1) return {1, 1};
  WorkSplit best{1, 1};
  std::size_t least = std::numeric_limits<std::size_t>::max();
  for (std::size_t unit_parts = 1; unit_parts <= std::min(units, threads); ++unit_parts) {
    const std::size_t row_parts = std::min(rows, divide_up(threads, unit_parts));
    const std::size_t part_rows = divide_up(rows, row_parts), part_units = divide_up(units, unit_parts);
    const std::size_t cost = divide_up(row_parts * unit_parts, threads) *
                             (kRowFraction * (part_rows + weight_rows) * part_units + part_rows);
    if (cost >= least) continue;
    least = cost;
    best = {row_parts, unit_parts};
  }
  const std::size_t part_rows = rows / best.row_parts;
  best.row_parts *= std::clamp<std::size_t>(part_rows / (kLeastRows * weight_rows), 1, kMostRounds);
  return best;
}

}  // namespace bitplan
