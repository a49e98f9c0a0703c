# spectx_target(<target>): the flags of the project's own compiled targets.
function(spectx_target target)
  target_compile_options(${target} PRIVATE -Wall -Wextra -Wpedantic -Wshadow -Wconversion
                                           $<$<BOOL:${SPECTX_WERROR}>:-Werror>)
  if(SPECTX_MARCH)
    target_compile_options(${target} PRIVATE -march=${SPECTX_MARCH})
  endif()
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
    # g++ 12 sees overlap in "text" + std::string (GCC bug 105651) and finds its own AVX-512
    # intrinsics uninitialised (105593).
    target_compile_options(${target} PRIVATE -Wno-restrict)
    if(SPECTX_MARCH)
      target_compile_options(${target} PRIVATE -Wno-uninitialized -Wno-maybe-uninitialized)
    endif()
  endif()
endfunction()
