// The level avx2vnni with VPDPBUSD as AVX-512 encodes it, for machines that have AVX-512 VNNI and no AVX-VNNI.
#include <immintrin.h>

#define kAvx2VnniKernels kAvx2VnniStandIn
#define _mm256_dpbusd_avx_epi32 _mm256_dpbusd_epi32
#include "../../kernels/cpp/isa/avx2vnni/avx2vnni.cpp"
