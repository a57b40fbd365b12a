// The tables of all levels and the questions that decide whether a machine may use them.
//
// A level is one translation unit in a folder of its own. It brings a vocabulary of vectors (simd.inc), how bytes are
// multiplied (products.inc, conv_bytes.inc, gemv.inc), codes expanded (decode.inc) and bytes convolved depthwise
// (depthwise.inc); generic/ turns these into kernels, and a level may take files of a lower one. All of it lies in the
// level's unnamed namespace: an inline function that two levels shared would be linked once, with the instructions of
// either. A new level is also named in sources.cmake, in levels.cpp and in tests/kernels/test_kernels_cpp.py.
#pragma once

#include <string_view>
#include <vector>

#include "../kernel_table.h"

namespace bitplan {

// What a level needs, by its name in Linux's /proc/cpuinfo. An extension whose registers the operating system does not
// save counts as absent.
struct Feature {
  const char* name;
  bool present;
};

// All that the level of this name needs; empty for the portable one. The level is supported exactly if all are present.
std::vector<Feature> features_of(std::string_view isa);

// Asked of the CPU and of the operating system (saved register state), in code that needs no extension itself.
bool has_nothing_special();
bool has_avx2();
bool has_avx2vnni();
bool has_avx512vnni();
bool has_amx();  // the first call asks the kernel for the tiles' state

extern const KernelTable kPortableKernels;
extern const KernelTable kAvx2Kernels;
extern const KernelTable kAvx2VnniKernels;
extern const KernelTable kAvx512VnniKernels;
extern const KernelTable kAmxKernels;

}  // namespace bitplan
