/* Answers the CPUID instructions that patch.py replaced, with the features above a level left out.
 *
 * patch.py overwrites `cpuid` (0F A2) with `int3; nop` (CC 90). The trap arrives here as SIGTRAP: the handler executes
 * the real instruction, clears feature bits and continues behind the pair. Load it by LD_PRELOAD, so that the handler
 * stands before the constructors of the patched libraries run. BITPLAN_CAP_ISA names the level: "avx512vnni" clears AMX
 * and AVX10, "avxvnni" AVX-512 as well, and "avx2" also AVX-VNNI.
 */
#define _GNU_SOURCE
#include <cpuid.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#define BIT(n) (1u << (n))

/* Leaf 7, subleaf 0. */
static const uint32_t avx512_ebx = BIT(16) | BIT(17) | BIT(21) | BIT(26) | BIT(27) | BIT(28) | BIT(30) | BIT(31);
static const uint32_t avx512_ecx = BIT(1) | BIT(6) | BIT(11) | BIT(12) | BIT(14);
static const uint32_t avx512_edx = BIT(2) | BIT(3) | BIT(8) | BIT(23);
static const uint32_t amx_edx = BIT(22) | BIT(24) | BIT(25);
/* Leaf 7, subleaf 1. */
static const uint32_t avx512_bf16_eax = BIT(5), amx_fp16_eax = BIT(21);
static const uint32_t avx_vnni_eax = BIT(4) | BIT(23);          /* AVX-VNNI, AVX-IFMA */
static const uint32_t avx_vnni_edx = BIT(4) | BIT(5) | BIT(10); /* INT8, NE-CONVERT, INT16 */
static const uint32_t amx_complex_edx = BIT(8), avx10_edx = BIT(19);

static int keep_avx512 = 1, keep_avx_vnni = 1;
static volatile unsigned long traps;

unsigned long bitplan_cap_isa_traps(void) { return traps; }

static void on_trap(int number, siginfo_t* info, void* context) {
  (void)info;
  greg_t* r = ((ucontext_t*)context)->uc_mcontext.gregs;
  const uint8_t* next = (const uint8_t*)r[REG_RIP];
  if (next[-1] != 0xCC || next[0] != 0x90) { /* not one of ours */
    signal(number, SIG_DFL);
    raise(number);
    return;
  }
  uint32_t leaf = (uint32_t)r[REG_RAX], sub = (uint32_t)r[REG_RCX], a, b, c, d;
  __cpuid_count(leaf, sub, a, b, c, d);
  if (leaf == 7 && sub == 0) {
    d &= ~amx_edx;
    if (!keep_avx512) b &= ~avx512_ebx, c &= ~avx512_ecx, d &= ~avx512_edx;
  } else if (leaf == 7 && sub == 1) {
    a &= ~amx_fp16_eax;
    d &= ~(amx_complex_edx | avx10_edx);
    if (!keep_avx512) a &= ~avx512_bf16_eax;
    if (!keep_avx_vnni) a &= ~avx_vnni_eax, d &= ~avx_vnni_edx;
  } else if (leaf == 0x1D || leaf == 0x1E || leaf == 0x24) { /* AMX tiles, AMX multiplier, AVX10 */
    a = b = c = d = 0;
  }
  r[REG_RAX] = a, r[REG_RBX] = b, r[REG_RCX] = c, r[REG_RDX] = d;
  r[REG_RIP] += 1;
  traps++;
}

__attribute__((constructor(101))) static void install(void) {
  const char* level = getenv("BITPLAN_CAP_ISA");
  if (!level) return;
  if (strcmp(level, "avx2") == 0) {
    keep_avx512 = keep_avx_vnni = 0;
  } else if (strcmp(level, "avxvnni") == 0) {
    keep_avx512 = 0;
  } else if (strcmp(level, "avx512vnni") != 0) {
    fprintf(stderr, "BITPLAN_CAP_ISA is '%s'; expected avx2, avxvnni or avx512vnni\n", level);
    exit(2);
  }
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_sigaction = on_trap;
  action.sa_flags = SA_SIGINFO;
  sigaction(SIGTRAP, &action, NULL);
}
