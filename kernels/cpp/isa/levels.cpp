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

bool has_avx2vnni() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return has_avx2() && __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) && (eax >> 4 & 1);
}

bool has_avx512vnni() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vbmi") &&
         __builtin_cpu_supports("avx512vpopcntdq") && __builtin_cpu_supports("gfni");
}

#if defined(__linux__)

// The system saves the state of tiles for a process that asked; threads that it starts may use them too.
bool has_amx() {
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  static const bool granted = [] {
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    const bool cpu = has_avx512vnni() && __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) && (edx >> 24 & 3) == 3;
    return cpu && syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  }();
  return granted;
}

#else

bool has_amx() { return false; }

#endif

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
