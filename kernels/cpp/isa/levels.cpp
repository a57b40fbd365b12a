// Which level runs: the list, what each needs, and the choice.
#include "levels.h"

#include <cstdlib>
#include <stdexcept>
#include <string>
#include <string_view>

namespace bitplan {

bool has_nothing_special() { return true; }

#if defined(__x86_64__)

// __builtin_cpu_supports also reads XCR0: an extension whose registers the system does not save counts as absent.
bool has_avx2() {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c") &&
         __builtin_cpu_supports("bmi2");
}

bool has_avx512vnni() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vbmi");
}

const KernelTable* const kLevels[] = {&kAvx512VnniKernels, &kAvx2Kernels, &kPortableKernels};

#else

const KernelTable* const kLevels[] = {&kPortableKernels};

#endif

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
