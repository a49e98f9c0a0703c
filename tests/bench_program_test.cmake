# Runs spectx-bench as a user does, on a model small enough for any machine.
# cmake -DBENCH=program -DTRACE=file -DFOLDER=folder -P bench_program_test.cmake
cmake_policy(VERSION 3.25)
file(REMOVE_RECURSE "${FOLDER}")
file(MAKE_DIRECTORY "${FOLDER}")
file(WRITE "${FOLDER}/config.json" [[{
  "model_type": "llama", "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
  "hidden_size": 64, "head_dim": 16, "intermediate_size": 96, "vocab_size": 300,
  "tie_word_embeddings": true}]])
set(tiny --model "${FOLDER}/config.json" --backend cpu --threads 2 --device-memory 12M
    --quick)
set(trace --trace "${TRACE}")

function(refuses code pattern)
  execute_process(
    COMMAND "${BENCH}" ${ARGN}
    RESULT_VARIABLE result
    OUTPUT_VARIABLE out
    ERROR_VARIABLE err)
  if(NOT result STREQUAL code OR NOT err MATCHES "^spectx-bench: [^\n]*${pattern}[^\n]*\n$")
    message(SEND_ERROR "${ARGN}\n  exit code ${result} instead of ${code}, or not '${pattern}':\n"
                       "${err}")
  endif()
endfunction()

refuses(2 "--mode: .slow. is neither" ${tiny} ${trace} --mode slow)
refuses(2 "--requests: .few. is no such number" ${tiny} ${trace} --requests few)
refuses(2 "--context: .0. is no such number" ${tiny} ${trace} --context 0)
refuses(1 "none of llama-3.1-8b" --model unknown --backend cpu ${trace})
refuses(1 "cannot be opened" ${tiny} --trace "${FOLDER}/none.bin")

execute_process(
  COMMAND "${BENCH}" ${tiny} ${trace} --context 700,900 --requests 1,max --budget 600 --chunk 128 --misses 0,1
          --json "${FOLDER}/out.json" --csv "${FOLDER}/out.csv"
  RESULT_VARIABLE result
  OUTPUT_VARIABLE out
  ERROR_VARIABLE err)
if(NOT result EQUAL 0)
  message(FATAL_ERROR "exit code ${result}: ${err}")
endif()
file(READ "${FOLDER}/out.json" json)
string(JSON count LENGTH "${json}" records)
file(STRINGS "${FOLDER}/out.csv" lines)
list(LENGTH lines num_lines)
if(NOT count EQUAL 12 OR NOT num_lines EQUAL 13)
  message(FATAL_ERROR "${count} records, ${num_lines} lines:\n${out}")
endif()
foreach(i RANGE 11)
  string(JSON error GET "${json}" records ${i} error)
  string(JSON path GET "${json}" records ${i} path)
  string(JSON mode GET "${json}" records ${i} mode)
  string(JSON steps LENGTH "${json}" records ${i} all_step_ms)
  if(error OR NOT steps EQUAL 8)
    message(SEND_ERROR "record ${i}: ${steps} steps, error '${error}'")
  endif()
  if((mode STREQUAL dense AND NOT path STREQUAL dense)
     OR (mode STREQUAL spectx AND NOT path STREQUAL selected_resident))
    message(SEND_ERROR "record ${i}: mode ${mode} took path ${path}")
  endif()
endforeach()
