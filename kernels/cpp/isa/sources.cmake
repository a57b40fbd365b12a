# BITPLAN_ISA_SOURCES: one translation unit per ISA level and the one that chooses. Only a level's own file is compiled
# with the level's flags. Include it in the directory that defines the target: source properties are per directory.
include(CheckCXXCompilerFlag)
include(CheckCXXSourceCompiles)
check_cxx_source_compiles("
#if !defined(__x86_64__)
#error another architecture
#endif
int main() { return 0; }" BITPLAN_X86_64)

# Results of u8 layers are the same bits at all levels because the compiler may not contract a * b + c on its own.
# Link-time optimisation would merge the levels into one unit again. Unrolling is asked for in GCC's own words, which
# other compilers need not know.
set(_optimise -O3)
if(BITPLAN_SANITIZE)
  set(_optimise -O1)  # sanitized code takes many minutes to optimise
endif()
set(_flags ${_optimise} -fno-math-errno -ffp-contract=off -fno-lto -Wno-unknown-pragmas)
set(_avx2 -mavx2 -mfma -mf16c -mbmi2)
set(_avx512vnni ${_avx2} -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni -mavx512vbmi -mavx512vpopcntdq -mgfni)
set(_avx2vnni ${_avx2} -mavxvnni)
set(_amx ${_avx512vnni} -mamx-tile -mamx-int8)

set(BITPLAN_ISA_SOURCES ${CMAKE_CURRENT_LIST_DIR}/levels.cpp ${CMAKE_CURRENT_LIST_DIR}/portable/portable.cpp)
set_source_files_properties(${CMAKE_CURRENT_LIST_DIR}/portable/portable.cpp PROPERTIES COMPILE_OPTIONS "${_flags}")
if(BITPLAN_X86_64)
  # Levels that not every compiler knows; levels.cpp is told by BITPLAN_<LEVEL>.
  set(_levels avx2 avx512vnni)
  check_cxx_compiler_flag(-mavxvnni BITPLAN_AVX2VNNI)
  check_cxx_compiler_flag("-mamx-tile -mamx-int8" BITPLAN_AMX)
  foreach(_level avx2vnni amx)
    string(TOUPPER ${_level} _upper)
    if(BITPLAN_${_upper})
      list(APPEND _levels ${_level})
      set_property(SOURCE ${CMAKE_CURRENT_LIST_DIR}/levels.cpp APPEND PROPERTY COMPILE_DEFINITIONS BITPLAN_${_upper})
    endif()
  endforeach()
  foreach(_level ${_levels})
    set(_source ${CMAKE_CURRENT_LIST_DIR}/${_level}/${_level}.cpp)
    list(APPEND BITPLAN_ISA_SOURCES ${_source})
    set_source_files_properties(${_source} PROPERTIES COMPILE_OPTIONS "${_flags};${_${_level}}")
  endforeach()
endif()
