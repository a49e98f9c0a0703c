# Every dependency of every target. All come from the system's packages first.
include(FetchContent)
find_package(Threads REQUIRED)

FetchContent_Declare(
  Eigen3
  GIT_REPOSITORY https://gitlab.com/libeigen/eigen.git
  GIT_TAG 3.4.0
  FIND_PACKAGE_ARGS 3.4)
FetchContent_MakeAvailable(Eigen3)

if(SPECTX_BUILD_EXAMPLES OR SPECTX_BUILD_TESTS)
  find_package(nlohmann_json 3.11 REQUIRED)
  find_package(PkgConfig REQUIRED)
  pkg_check_modules(PCRE2 REQUIRED IMPORTED_TARGET libpcre2-8)
endif()
if(SPECTX_BUILD_TESTS)
  find_package(Catch2 REQUIRED)
endif()
if(SPECTX_BUILD_BENCHMARKS)
  find_package(benchmark REQUIRED)
endif()
