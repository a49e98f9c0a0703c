# What a build of this project by itself gets unless told otherwise; never forced on a parent.
if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  # Without optimisation Eigen is a hundred times slower.
  set(CMAKE_BUILD_TYPE
      Release
      CACHE STRING "Debug, Release, RelWithDebInfo or MinSizeRel" FORCE)
endif()
if(NOT DEFINED CMAKE_CXX_COMPILER_LAUNCHER)
  find_program(SPECTX_CCACHE ccache DOC "Compiler cache; used when found")
  if(SPECTX_CCACHE)
    set(CMAKE_CXX_COMPILER_LAUNCHER ${SPECTX_CCACHE})
  endif()
endif()
