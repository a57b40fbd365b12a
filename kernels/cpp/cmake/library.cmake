# The target `bitplan`: the runtime behind its C interface (include/bitplan.h), static unless BUILD_SHARED_LIBS is set.
# With BITPLAN_PYTHON it is built only when asked for by name, and not installed: wheels hold the extension alone.
add_library(bitplan ${CPP}/c_api.cpp $<TARGET_OBJECTS:bitplan_core>)
add_library(bitplan::bitplan ALIAS bitplan)
target_link_libraries(bitplan PRIVATE Threads::Threads)
target_include_directories(bitplan PUBLIC $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/kernels/include>
                                          $<INSTALL_INTERFACE:include>)
set_target_properties(bitplan PROPERTIES VERSION ${PROJECT_VERSION} SOVERSION 1 EXCLUDE_FROM_ALL ${BITPLAN_PYTHON})
if(BITPLAN_SANITIZE)
  target_link_options(bitplan INTERFACE ${SANITIZERS})
endif()
# Templates of the standard library are visible whatever the flags say; a version script hides them too.
if(BUILD_SHARED_LIBS AND CMAKE_SYSTEM_NAME STREQUAL "Linux")
  set(BITPLAN_EXPORTS ${CMAKE_CURRENT_LIST_DIR}/exports.map)
  target_link_options(bitplan PRIVATE "LINKER:--version-script=${BITPLAN_EXPORTS}")
  set_target_properties(bitplan PROPERTIES LINK_DEPENDS ${BITPLAN_EXPORTS})
endif()

if(BITPLAN_PYTHON)
  return()
endif()

include(CMakePackageConfigHelpers)
include(GNUInstallDirs)
set(PACKAGE_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/bitplan)
install(TARGETS bitplan EXPORT bitplanTargets)
install(FILES kernels/include/bitplan.h TYPE INCLUDE)
install(EXPORT bitplanTargets NAMESPACE bitplan:: DESTINATION ${PACKAGE_DIR})
configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/bitplanConfig.cmake.in bitplanConfig.cmake
                              INSTALL_DESTINATION ${PACKAGE_DIR})
write_basic_package_version_file(bitplanConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/bitplanConfig.cmake ${PROJECT_BINARY_DIR}/bitplanConfigVersion.cmake
        DESTINATION ${PACKAGE_DIR})

# Who links the static library links what it needs as well: threads and the C++ standard library.
set(PKGCONFIG_LIBS "-lbitplan")
if(NOT BUILD_SHARED_LIBS)
  set(_standard ${CMAKE_CXX_IMPLICIT_LINK_LIBRARIES})
  list(FILTER _standard INCLUDE REGEX "^(stdc\\+\\+|c\\+\\+|m)$")
  list(REMOVE_DUPLICATES _standard)
  list(TRANSFORM _standard PREPEND "-l")
  list(JOIN _standard " " _standard)
  string(APPEND PKGCONFIG_LIBS " ${_standard} -pthread")
endif()
configure_file(${CMAKE_CURRENT_LIST_DIR}/bitplan.pc.in bitplan.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/bitplan.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
