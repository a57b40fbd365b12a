// The weight encodings that this runtime executes, and their sizes in the file.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "artifact.h"
#include "kernel_table.h"

namespace bitplan {

// How a file holds weights: as its codec does, in entropy code, as the input of a network of XOR gates, as a mask and
// those that it keeps, or as numbers of evenly spaced levels that the file names.
enum class Storage : std::uint8_t { plain, entropy, xor_network, pruned, even };

// An encoding of a file, by its number: what it is held as in memory, and how in the file.
struct CodecInfo {
  Codec codec;
  const char* name;
  Storage storage = Storage::plain;
  std::size_t kept_bits = 8;  // apb: of the level of a kept weight; 3: of its magnitude, its sign being its code
};

constexpr std::array<CodecInfo, 15> kCodecs = {{
    {Codec::float32, "float32"},
    {Codec::int8, "int8"},
    {Codec::int4, "int4"},
    {Codec::int3, "int3"},
    {Codec::int2, "int2"},
    {Codec::ternary, "ternary"},
    {Codec::binary, "binary"},
    {Codec::apb, "apb"},
    {Codec::int8, "coded", Storage::entropy},
    {Codec::ternary, "codedternary", Storage::entropy},
    {Codec::ternary, "xor", Storage::xor_network},
    {Codec::int8, "pruned", Storage::pruned},
    {Codec::float32, "prunedfloat", Storage::pruned},
    {Codec::int8, "even", Storage::even},
    {Codec::apb, "apb4", Storage::plain, 3},
}};

constexpr std::size_t kUnitLevelBytes = 1;  // apb: the unit of its levels, before the kept ones

// Bytes of n codes of so many bits. No n overflows it.
std::size_t packed_size(std::size_t n, std::size_t bits);

// Bytes of n codes in the file, and in memory (not for float32).
std::size_t stored_code_bytes(Codec codec, std::size_t n);
std::size_t resident_code_bytes(Codec codec, std::size_t n);

// Elias-Fano: low bits kept verbatim, and bytes of k ascending positions below n.
std::size_t elias_fano_shift(std::size_t k, std::size_t n);
std::size_t elias_fano_bytes(std::size_t k, std::size_t n);

// Bytes of a packed layer that is not entropy-coded, filled up to a multiple of 8; `number` is that of its record:
// weights kept, the rate of xor, or the bits of even levels.
std::size_t packed_layer_bytes(const CodecInfo& info, const LayerShape& shape, std::size_t number);

}  // namespace bitplan
