// The weight encodings that this runtime executes, and their sizes in the file.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "artifact.h"
#include "kernel_table.h"

namespace bitplan {

// How a file holds weights: as its codec does, in entropy code, as the input of a network of XOR gates, or as a mask
// and those that it keeps.
enum class Storage : std::uint8_t { plain, entropy, xor_network, pruned };

// An encoding of a file, by its number: what it is held as in memory, and how in the file.
struct CodecInfo {
  Codec codec;
  const char* name;
  Storage storage = Storage::plain;
};

constexpr std::array<CodecInfo, 13> kCodecs = {{
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
}};

constexpr std::size_t kUnitBytes = 8;       // the f32 units of scale and bias
constexpr std::size_t kUnitLevelBytes = 1;  // apb: the unit of its levels, before the kept ones

// Bytes of n codes in the file, and in memory (not for float32).
std::size_t stored_code_bytes(Codec codec, std::size_t n);
std::size_t resident_code_bytes(Codec codec, std::size_t n);

// Elias-Fano: low bits kept verbatim, and bytes of k ascending positions below n.
std::size_t elias_fano_shift(std::size_t k, std::size_t n);
std::size_t elias_fano_bytes(std::size_t k, std::size_t n);

// Bytes of a packed layer that is not entropy-coded, filled up to a multiple of 8; `number` is that of its record:
// weights kept, or the rate of xor.
std::size_t packed_layer_bytes(const CodecInfo& info, const LayerShape& shape, std::size_t number);

}  // namespace bitplan
