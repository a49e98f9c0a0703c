# find_package(spectx) and find_package(spectx COMPONENTS io cuda): one export set a component, so
# that an installation asks only for what its components need.
include(CMakePackageConfigHelpers)
set(destination ${CMAKE_INSTALL_LIBDIR}/cmake/spectx)

install(TARGETS spectx EXPORT spectxTargets FILE_SET HEADERS)
install(
  EXPORT spectxTargets
  NAMESPACE spectx::
  DESTINATION ${destination})
if(SPECTX_BUILD_IO)
  install(TARGETS spectx_io EXPORT spectxIoTargets FILE_SET HEADERS)
  install(
    EXPORT spectxIoTargets
    NAMESPACE spectx::
    DESTINATION ${destination})
endif()
if(SPECTX_ENABLE_CUDA)
  install(TARGETS spectx_cuda EXPORT spectxCudaTargets FILE_SET HEADERS)
  install(
    EXPORT spectxCudaTargets
    NAMESPACE spectx::
    DESTINATION ${destination})
endif()

configure_package_config_file(
  ${CMAKE_CURRENT_LIST_DIR}/spectxConfig.cmake.in ${PROJECT_BINARY_DIR}/spectxConfig.cmake
  INSTALL_DESTINATION ${destination})
# Before 1.0 a minor version may change the interface.
write_basic_package_version_file(${PROJECT_BINARY_DIR}/spectxConfigVersion.cmake
                                 COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/spectxConfig.cmake
              ${PROJECT_BINARY_DIR}/spectxConfigVersion.cmake DESTINATION ${destination})
