// The tables of all levels and the questions that decide whether a machine may use them.
#pragma once

#include "../kernel_table.h"

namespace bitplan {

// Asked of the CPU and of the operating system (saved register state), in code that needs no extension itself.
bool has_nothing_special();
bool has_avx2();
bool has_avx512vnni();

extern const KernelTable kPortableKernels;
extern const KernelTable kAvx2Kernels;
extern const KernelTable kAvx512VnniKernels;

}  // namespace bitplan
