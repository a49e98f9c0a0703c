# cmake -D WAY=find_package|add_subdirectory|headers -D SOURCE= -D BUILD= -D WORK= -D COMPILER=
#       -D GENERATOR= -D EIGEN= -P check.cmake
# Builds and runs the outside project in WORK with the library taken in one of three ways: the
# installation of BUILD, the folder SOURCE, or nothing but the two folders of headers.
cmake_minimum_required(VERSION 3.25)

function(run)
  execute_process(COMMAND ${ARGV} COMMAND_ERROR_IS_FATAL ANY)
endfunction()

file(REMOVE_RECURSE "${WORK}")
file(MAKE_DIRECTORY "${WORK}")
set(consumer "${CMAKE_CURRENT_LIST_DIR}")

if(WAY STREQUAL "headers")
  run("${COMPILER}" -std=c++20 -I "${SOURCE}/include" -I "${EIGEN}" "${consumer}/step.cpp" -o
      "${WORK}/step")
  run("${WORK}/step")
  return()
endif()

if(WAY STREQUAL "find_package")
  run("${CMAKE_COMMAND}" --install "${BUILD}" --prefix "${WORK}/prefix")
  # An installation that refers to where it was built works nowhere else.
  file(GLOB_RECURSE files "${WORK}/prefix/*.cmake" "${WORK}/prefix/*.hpp")
  foreach(file IN LISTS files)
    file(READ "${file}" text)
    string(FIND "${text}" "${SOURCE}" at)
    if(NOT at EQUAL -1)
      message(FATAL_ERROR "${file} refers to ${SOURCE}")
    endif()
  endforeach()
  set(where "-DCMAKE_PREFIX_PATH=${WORK}/prefix")
else()
  set(where "-DSPECTX_SOURCE=${SOURCE}")
endif()
run("${CMAKE_COMMAND}" -S "${consumer}" -B "${WORK}/build" -G "${GENERATOR}"
    "-DCMAKE_CXX_COMPILER=${COMPILER}" -DCMAKE_BUILD_TYPE=Debug "${where}")
run("${CMAKE_COMMAND}" --build "${WORK}/build")
run("${CMAKE_CTEST_COMMAND}" --test-dir "${WORK}/build" --output-on-failure --no-tests=error)
