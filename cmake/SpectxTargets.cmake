# spectx_target(<target>): the flags of the project's own compiled targets.
function(spectx_target target)
  target_compile_options(${target} PRIVATE -Wall -Wextra -Wpedantic -Wshadow -Wconversion
                                           $<$<BOOL:${SPECTX_WERROR}>:-Werror>)
  if(SPECTX_MARCH)
    target_compile_options(${target} PRIVATE -march=${SPECTX_MARCH})
  endif()
endfunction()
