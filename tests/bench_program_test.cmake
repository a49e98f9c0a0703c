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
refuses(2 "--requests: .few. is no number of requests" ${tiny} ${trace} --requests few)
refuses(2 "--context must be numbers from 1 to" ${tiny} ${trace} --context 0)
refuses(1 "none of llama-3.1-8b" --model unknown --backend cpu ${trace})
refuses(1 "cannot be opened" ${tiny} --trace "${FOLDER}/none.bin")

refuses(1 "none/a.json: cannot be written" ${tiny} ${trace} --json "${FOLDER}/none/a.json")
refuses(2 "must name different files" ${tiny} ${trace} --json "${FOLDER}/a" --csv "${FOLDER}/a")
refuses(2 "--plot needs --run or --arrivals" ${tiny} ${trace} --plot "${FOLDER}/a.svg")
refuses(2 "--skip needs --run" ${tiny} ${trace} --skip 1,1)
refuses(2 "--misses must be 0 or from 1" ${tiny} ${trace} --misses 0.5)
refuses(2 "--kernels is for steps .* graphs" ${tiny} ${trace} --kernels "${FOLDER}/a.csv")

if(EXISTS /dev/full)
  execute_process(COMMAND "${BENCH}" --help OUTPUT_FILE /dev/full RESULT_VARIABLE result ERROR_VARIABLE err)
  if(NOT result EQUAL 1 OR NOT err MATCHES "^spectx-bench: standard output cannot be written\n$")
    message(SEND_ERROR "a full disk: exit code ${result}: ${err}")
  endif()
endif()

refuses(2 "--run must be two numbers" ${tiny} ${trace} --run 100)
refuses(2 "--run and --arrivals exclude" ${tiny} ${trace} --run 100,100 --arrivals 2)
refuses(2 "--requests must be numbers from 1 to" ${tiny} ${trace} --run 100,100 --requests max)

execute_process(
  COMMAND "${BENCH}" --model "${FOLDER}/config.json" --backend cpu --threads 2 --quick ${trace}
          --device-memory 1K --context 700 --requests 1 --chunk 128
  RESULT_VARIABLE result OUTPUT_QUIET ERROR_VARIABLE err)
if(NOT result EQUAL 1 OR NOT err MATCHES "spectx-bench: 2 of 2 cases failed: out of device memory")
  message(SEND_ERROR "a cap below the weights: exit code ${result}: ${err}")
endif()

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
# The floor of a step of one request that reads 600 rows: weights in bf16, activations in f32.
foreach(expected "products bytes 194688" "products flops 184320" "logits bytes 39856"
                 "attend bytes 231936" "attend flops 460800" "slots bytes 0")
  separate_arguments(expected)
  list(GET expected 0 term)
  list(GET expected 1 unit)
  list(GET expected 2 wanted)
  string(JSON found GET "${json}" records 0 floor ${term} ${unit})
  if(NOT found EQUAL wanted)
    message(SEND_ERROR "floor of ${term}: ${found} ${unit}, wanted ${wanted}")
  endif()
endforeach()

# Another set of cases takes the flags of the first one that it does not give itself.
refuses(2 "--next: --model is for all" ${tiny} ${trace} --next --model llama-3.1-8b)
execute_process(
  COMMAND "${BENCH}" ${tiny} ${trace} --context=700 --budget 600 --mode spectx --json
          "${FOLDER}/first.json" --next --context 900 --misses 1,2 --json "${FOLDER}/second.json"
  RESULT_VARIABLE result
  ERROR_VARIABLE err
  OUTPUT_QUIET)
if(NOT result EQUAL 0)
  message(FATAL_ERROR "--next: exit code ${result}: ${err}")
endif()
foreach(expected "first 0 700 1" "second 0 900 1" "second 1 900 2")
  separate_arguments(expected)
  list(GET expected 0 name)
  list(GET expected 1 i)
  list(GET expected 2 wanted_context)
  list(GET expected 3 wanted_misses)
  file(READ "${FOLDER}/${name}.json" json)
  string(JSON context GET "${json}" records ${i} context)
  string(JSON budget GET "${json}" records ${i} budget)
  string(JSON misses GET "${json}" records ${i} miss_scale)
  string(JSON error GET "${json}" records ${i} error)
  if(error
     OR NOT context EQUAL wanted_context
     OR NOT misses EQUAL wanted_misses
     OR NOT budget EQUAL 600)
    message(SEND_ERROR "--next: ${expected}: ${context} ${budget} ${misses} ${error}")
  endif()
endforeach()

# Requests that grow and requests that come and go, with a device too small for all of their rows.
set(small --model "${FOLDER}/config.json" --backend cpu --threads 2 --host-memory 16M --budget 128
    --chunk 64 --mode spectx ${trace})
function(serves name)
  execute_process(
    COMMAND "${BENCH}" ${small} ${ARGN} --json "${FOLDER}/${name}.json" --csv
            "${FOLDER}/${name}.csv" --plot "${FOLDER}/${name}.svg"
    RESULT_VARIABLE result
    OUTPUT_VARIABLE out
    ERROR_VARIABLE err)
  file(READ "${FOLDER}/${name}.json" json)
  string(JSON error GET "${json}" timelines 0 error)
  if(NOT result EQUAL 0 OR error)
    message(FATAL_ERROR "${name}: exit code ${result}, error '${error}': ${err}")
  endif()
  file(READ "${FOLDER}/${name}.svg" svg)
  if(NOT svg MATCHES "layers on the device.*</svg>")
    message(SEND_ERROR "${name}: no plot")
  endif()
  set(json "${json}" PARENT_SCOPE)
endfunction()
# check(KEY EQUAL|GREATER VALUE [KEY..]): of the timeline.
function(check key relation wanted)
  string(JSON value GET "${json}" timelines 0 ${key} ${ARGN})
  if(NOT value ${relation} wanted)
    message(SEND_ERROR "${key} ${ARGN} is ${value}, wanted: ${relation} ${wanted}")
  endif()
endfunction()

serves(run --device-memory 2200K --run 200,900 --requests 4 --sample 50)
check(output_tokens EQUAL 3600)
check(prompt_tokens EQUAL 800)
check(steps EQUAL 900)
check(most_at_once EQUAL 4)
check(stalled_batches EQUAL 0)
check(moved_groups GREATER 0)
string(JSON count LENGTH "${json}" timelines 0 samples tokens)
math(EXPR last "${count} - 1")
check(samples EQUAL 4400 tokens ${last})
string(JSON planned GET "${json}" timelines 0 memory planned)
if(planned GREATER 2252800)
  message(SEND_ERROR "planned ${planned} bytes under a cap of 2252800")
endif()

# A third of the tokens in steps, the others filled in; both tiers hold all of them.
serves(skip --device-memory 2200K --run 200,900 --requests 4 --sample 50 --skip 50,100)
check(output_tokens EQUAL 1204)
check(skipped_tokens EQUAL 2396)
check(moved_groups GREATER 0)
string(JSON count LENGTH "${json}" timelines 0 samples tokens)
math(EXPR last "${count} - 1")
check(samples EQUAL 4400 tokens ${last})

serves(arrivals --device-memory 2200K --arrivals 24 --prompt-tokens 100,900 --output-tokens 50,400
       --arrival-gap 30 --park-every 60 --requests 6)
check(visits EQUAL 24)
check(refused EQUAL 0)
check(moved_groups GREATER 0)
check(parks GREATER 0)
check(waited GREATER 0)

# A run that its time cuts off is written as far as it went, and says so by its exit code.
execute_process(
  COMMAND "${BENCH}" ${small} --device-memory 2200K --run 200,3000 --requests 4 --seconds 0.05
          --json "${FOLDER}/cut_off.json"
  RESULT_VARIABLE result
  OUTPUT_QUIET
  ERROR_VARIABLE err)
file(READ "${FOLDER}/cut_off.json" json)
string(JSON error GET "${json}" timelines 0 error)
if(NOT result EQUAL 3 OR NOT error MATCHES "^cut off")
  message(SEND_ERROR "cut off: exit code ${result}, error '${error}': ${err}")
endif()
