// What the programs that test levels (*_test.cpp) share: random numbers, and mismatches that are counted and printed.
#pragma once

#include <cstdio>
#include <initializer_list>
#include <random>
#include <string>
#include <vector>

#include "../../kernels/cpp/kernel_table.h"

namespace bitplan::testing {

using std::size_t;
template <class T>
using Vec = std::vector<T>;

inline std::mt19937 generator(20240501);
inline int failures = 0;

// Uniform in [low, high].
inline int draw(int low, int high) { return std::uniform_int_distribution<int>(low, high)(generator); }
inline size_t draw_size(size_t low, size_t high) { return std::uniform_int_distribution<size_t>(low, high)(generator); }
inline float draw_float(float low = -2, float high = 2) {
  return std::uniform_real_distribution<float>(low, high)(generator);
}

// Counts a mismatch of level `k` unless `good`; the first 40 are printed.
inline void expect(bool good, const KernelTable& k, const std::string& what) {
  if (!good && ++failures <= 40) std::printf("MISMATCH %s %s\n", k.isa, what.c_str());
}

inline void expect(bool good, const KernelTable& k, const char* what, std::initializer_list<size_t> sizes) {
  if (good) return;
  std::string text = what;
  for (const size_t size : sizes) text += " " + std::to_string(size);
  expect(false, k, text);
}

}  // namespace bitplan::testing
