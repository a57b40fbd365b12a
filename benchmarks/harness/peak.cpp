// The fastest int8 multiply-adds of one core, without memory: twelve independent accumulators in registers.
// peak_<level>(steps) runs `steps` rounds of twelve vector multiply-adds and returns a sum that depends on all of them.
#include <immintrin.h>

#include <cstdint>

// One variable each: an array would be kept in memory.
#define EACH(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11)
// Keeps the compiler from noticing that all accumulators hold the same.
#define OPAQUE(value) asm volatile("" : "+v"(value))

extern "C" {

// VPDPBUSD on 512 bits: 64 multiply-adds an instruction.
__attribute__((target("avx512f,avx512vnni"))) int64_t peak_avx512vnni(int64_t steps) {
  const __m512i a = _mm512_set1_epi8(3), b = _mm512_set1_epi8(2);
#define DECLARE(n) __m512i sum##n = _mm512_setzero_si512();
#define STEP(n)                               \
  sum##n = _mm512_dpbusd_epi32(sum##n, a, b); \
  OPAQUE(sum##n);
#define GATHER(n) all = _mm512_add_epi32(all, sum##n);
  EACH(DECLARE)
  for (int64_t i = 0; i < steps; i++) {
    EACH(STEP)
  }
  __m512i all = _mm512_setzero_si512();
  EACH(GATHER)
  return _mm_cvtsi128_si32(_mm512_castsi512_si128(all));
#undef DECLARE
#undef STEP
#undef GATHER
}

#define DECLARE(n) __m256i sum##n = _mm256_setzero_si256();
#define GATHER(n) all = _mm256_add_epi32(all, sum##n);

// VPDPBUSD on 256 bits: 32 multiply-adds.
__attribute__((target("avx2,avxvnni"))) int64_t peak_avxvnni(int64_t steps) {
  const __m256i a = _mm256_set1_epi8(3), b = _mm256_set1_epi8(2);
#define STEP(n)                                   \
  sum##n = _mm256_dpbusd_avx_epi32(sum##n, a, b); \
  OPAQUE(sum##n);
  EACH(DECLARE)
  for (int64_t i = 0; i < steps; i++) {
    EACH(STEP)
  }
  __m256i all = _mm256_setzero_si256();
  EACH(GATHER)
  return _mm256_extract_epi32(all, 0);
#undef STEP
}

// VPMADDUBSW, VPMADDWD and VPADDD on 256 bits: 32 multiply-adds in three instructions, exact for 7-bit weights.
__attribute__((target("avx2"))) int64_t peak_avx2(int64_t steps) {
  __m256i a = _mm256_set1_epi8(3);
  const __m256i b = _mm256_set1_epi8(2), ones = _mm256_set1_epi16(1);
#define STEP(n) \
  OPAQUE(a);    \
  sum##n = _mm256_add_epi32(sum##n, _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), ones));
  EACH(DECLARE)
  for (int64_t i = 0; i < steps; i++) {
    EACH(STEP)
  }
  __m256i all = _mm256_setzero_si256();
  EACH(GATHER)
  return _mm256_extract_epi32(all, 0);
#undef STEP
}
}
