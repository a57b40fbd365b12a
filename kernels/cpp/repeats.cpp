#include "repeats.h"

#include <algorithm>

#include "bits.h"
#include "error.h"

namespace bitplan {
namespace {

constexpr std::size_t kLongestCopy = 64;

class BitReader {
 public:
  explicit BitReader(Bytes data) : data_(data) {}

  std::size_t bits(std::size_t count) {
    if (count > left()) throw FormatError("the structure ends inside a token");
    at_ += count;
    return bits_at(data_.data(), at_ - count, count);
  }

  bool bit() { return bits(1); }

  // Elias' gamma code of a number below 2^32.
  std::size_t gamma() {
    std::size_t more = 0;
    while (!bit())
      if (++more == 32) throw FormatError("the structure holds a number of 2^32 or more");
    return std::size_t(1) << more | bits(more);
  }

  // Nothing is left but the rest of a byte, of zeros.
  bool at_end() { return left() < 8 && bits(left()) == 0; }

 private:
  std::size_t left() const { return 8 * data_.size() - at_; }

  Bytes data_;
  std::size_t at_ = 0;
};

}  // namespace

std::vector<std::uint8_t> expand_repeats(Bytes data, std::size_t size) {
  BitReader reader(data);
  std::vector<std::uint8_t> found;
  std::size_t distance = 0;
  while (found.size() < size) {
    if (!reader.bit()) {
      found.push_back(std::uint8_t(reader.bits(8)));
      continue;
    }
    if (!reader.bit()) distance = reader.gamma();
    const std::size_t length = reader.gamma();
    if (distance < 1 || distance > found.size() || length > std::min(kLongestCopy, size - found.size()))
      throw FormatError(text("the structure copies ", length, " bytes from ", distance, " back at byte ", found.size(),
                             " of ", size));
    for (std::size_t i = 0; i < length; ++i) found.push_back(found[found.size() - distance]);
  }
  if (!reader.at_end()) throw FormatError("the structure has something behind its last token");
  return found;
}

}  // namespace bitplan
