// Which level runs: the list, what each needs, and the choice. BITPLAN_AVX2VNNI and BITPLAN_AMX say that the compiler
// knew the flags of these levels.
#include "levels.h"

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif

#include <algorithm>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace bitplan {

#if defined(__x86_64__)

namespace {

using Features = std::vector<Feature>;

Features operator+(Features features, const Features& further) {
  features.insert(features.end(), further.begin(), further.end());
  return features;
}

bool all_present(const Features& features) {
  return std::all_of(features.begin(), features.end(), [](const Feature& feature) { return feature.present; });
}

// EAX and EDX of leaf 7.
struct Leaf7 {
  unsigned eax = 0, edx = 0;
};

Leaf7 leaf_7(unsigned subleaf) {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (!__get_cpuid_count(7, subleaf, &eax, &ebx, &ecx, &edx)) return {};
  return {eax, edx};
}

// The system saves the state of tiles for a process that asked; threads that it starts may use them too.
bool tiles_are_saved() {
#if defined(__linux__)
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  static const bool granted = syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  return granted;
#else
  return false;
#endif
}

// __builtin_cpu_supports also reads XCR0, which says what registers the system saves. Its argument is a literal.
#define BITPLAN_FEATURE(name, gcc_name) Feature{name, __builtin_cpu_supports(gcc_name) != 0}

Features avx2_features() {
  __builtin_cpu_init();
  return {BITPLAN_FEATURE("avx2", "avx2"), BITPLAN_FEATURE("fma", "fma"), BITPLAN_FEATURE("f16c", "f16c"),
          BITPLAN_FEATURE("bmi2", "bmi2")};
}

Features avx2vnni_features() { return avx2_features() + Features{{"avx_vnni", (leaf_7(1).eax >> 4 & 1) != 0}}; }

Features avx512vnni_features() {
  return avx2_features() + Features{BITPLAN_FEATURE("avx512f", "avx512f"),
                                    BITPLAN_FEATURE("avx512bw", "avx512bw"),
                                    BITPLAN_FEATURE("avx512vl", "avx512vl"),
                                    BITPLAN_FEATURE("avx512dq", "avx512dq"),
                                    BITPLAN_FEATURE("avx512_vnni", "avx512vnni"),
                                    BITPLAN_FEATURE("avx512vbmi", "avx512vbmi"),
                                    BITPLAN_FEATURE("avx512_vpopcntdq", "avx512vpopcntdq"),
                                    BITPLAN_FEATURE("gfni", "gfni")};
}

Features amx_features() {
  const unsigned edx = leaf_7(0).edx;
  const bool tiles = (edx >> 24 & 1) && tiles_are_saved();
  return avx512vnni_features() + Features{{"amx_tile", tiles}, {"amx_int8", (edx >> 25 & 1) != 0}};
}

#undef BITPLAN_FEATURE

}  // namespace

bool has_avx2() { return all_present(avx2_features()); }
bool has_avx2vnni() { return all_present(avx2vnni_features()); }
bool has_avx512vnni() { return all_present(avx512vnni_features()); }
bool has_amx() { return all_present(amx_features()); }

std::vector<Feature> features_of(std::string_view isa) {
  if (isa == "amx") return amx_features();
  if (isa == "avx512vnni") return avx512vnni_features();
  if (isa == "avx2vnni") return avx2vnni_features();
  if (isa == "avx2") return avx2_features();
  return {};
}

const KernelTable* const kLevels[] = {
#if defined(BITPLAN_AMX)
    &kAmxKernels,
#endif
    &kAvx512VnniKernels,
#if defined(BITPLAN_AVX2VNNI)
    &kAvx2VnniKernels,
#endif
    &kAvx2Kernels, &kPortableKernels};

#else

std::vector<Feature> features_of(std::string_view) { return {}; }

const KernelTable* const kLevels[] = {&kPortableKernels};

#endif

bool has_nothing_special() { return true; }

const std::size_t kLevelCount = sizeof(kLevels) / sizeof(kLevels[0]);

namespace {

const KernelTable& choose() {
  const char* variable = std::getenv("BITPLAN_ISA");
  const std::string_view wanted = variable ? variable : "";
  bool known = false;
  std::string available;
  for (const KernelTable* level : kLevels) {
    const bool named = wanted == level->isa;
    known = known || named;
    if (!level->supported()) continue;
    if (wanted.empty() || named) return *level;
    available += (available.empty() ? "" : ", ") + std::string(level->isa);
  }
  throw std::runtime_error("BITPLAN_ISA=" + std::string(wanted) +
                           (known ? " names a level that this machine does not support" : " names no known level") +
                           "; available here: " + available + " (unset it to take the best)");
}

}  // namespace

const KernelTable& active_kernels() {
  static const KernelTable& chosen = choose();
  return chosen;
}

}  // namespace bitplan
