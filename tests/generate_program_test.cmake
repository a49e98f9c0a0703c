# Runs spectx-generate as a user does: every bad input, then good runs that are compared.
# cmake -DGENERATE=program -DTINY_FILES=program -DFOLDER=folder -P generate_program_test.cmake
cmake_policy(VERSION 3.25)
file(REMOVE_RECURSE "${FOLDER}")
execute_process(COMMAND "${TINY_FILES}" "${FOLDER}" COMMAND_ERROR_IS_FATAL ANY)
set(model --model "${FOLDER}/model.gguf")
set(head --head "${FOLDER}/head.safetensors")
set(short --prompt-file "${FOLDER}/short.txt")
set(few --max-tokens 8 --no-stop --threads 2)

# refuses(<exit code> <regular expression of the one line> <arguments...>)
function(refuses code pattern)
  execute_process(
    COMMAND "${GENERATE}" ${ARGN}
    INPUT_FILE "${FOLDER}/empty.txt"
    RESULT_VARIABLE result
    OUTPUT_VARIABLE out
    ERROR_VARIABLE err)
  if(NOT result STREQUAL code
     OR NOT err MATCHES "^spectx-generate: [^\n]*${pattern}[^\n]*\n$"
     OR NOT out STREQUAL "")
    message(SEND_ERROR "${ARGN}\n  exit code ${result} instead of ${code}, or not one line with"
                       " '${pattern}':\n${err}\nstandard output: ${out}")
  endif()
endfunction()

# runs(<name> <arguments...>): leaves the figures in <name>, the text in <name>_text, what is on
# standard error in <name>_report
function(runs name)
  execute_process(
    COMMAND "${GENERATE}" ${ARGN} --backend cpu --json "${FOLDER}/${name}.json"
    RESULT_VARIABLE result
    OUTPUT_VARIABLE out
    ERROR_VARIABLE err)
  if(NOT result EQUAL 0)
    message(FATAL_ERROR "${ARGN}\n  exit code ${result}:\n${err}")
  endif()
  file(READ "${FOLDER}/${name}.json" json)
  string(JSON ids ERROR_VARIABLE error LENGTH "${json}" token_ids)
  if(error)
    message(SEND_ERROR "${ARGN}\n  ${error}")
  endif()
  set(${name} "${json}" PARENT_SCOPE)
  set(${name}_text "${out}" PARENT_SCOPE)
  set(${name}_report "${err}" PARENT_SCOPE)
endfunction()

# same(<what> <json> <json> <path...>): both hold the same value there
function(same what a b)
  string(JSON first GET "${a}" ${ARGN})
  string(JSON second GET "${b}" ${ARGN})
  if(NOT first STREQUAL second)
    message(SEND_ERROR "${what}: ${ARGN} differ:\n${first}\n${second}")
  endif()
endfunction()

# holds(<json> <value> <path...>)
function(holds json value)
  string(JSON got GET "${json}" ${ARGN})
  if(NOT got STREQUAL value)
    message(SEND_ERROR "${ARGN} is ${got}, not ${value}")
  endif()
endfunction()

# Wrong usage.
refuses(2 "--model is missing" ${head} ${short})
refuses(2 "--head is missing" ${model} ${short})
refuses(2 "--full and --compare" ${model} ${head} ${short} --full --compare)
refuses(2 "--prompt and --prompt-file" ${model} ${head} ${short} --prompt hello)
refuses(2 "--budget must be a whole number" ${model} ${head} ${short} --budget=-1)
refuses(2 "--max-budget must be a whole number" ${model} ${head} ${short} --max-budget 0)
refuses(2 "--min-coverage must be a number" ${model} ${head} ${short} --min-coverage 1.01)
refuses(2 "--min-coverage must be a number" ${model} ${head} ${short} --min-coverage nan)
refuses(2 "--max-budget and --capped need --min-coverage" ${model} ${head} ${short} --capped)
refuses(2 "--max-budget and --capped need --min-coverage" ${model} ${head} ${short}
        --max-budget 600)
refuses(2 "--max-tokens must be a whole number" ${model} ${head} ${short} --max-tokens 0)
refuses(2 "--head-theta must be a number" ${model} ${head} ${short} --head-theta 0)
refuses(2 "--max-tokens must be a whole number" ${model} ${head} ${short} --max-tokens 9x)
refuses(2 "--temp must be a number" ${model} ${head} ${short} --temp warm)
refuses(2 "--top-p must be a number" ${model} ${head} ${short} --top-p 1.5)
refuses(2 "--window must be a whole number" ${model} ${head} ${short} --window 0)
refuses(2 "--dtype must be one of" ${model} ${head} ${short} --dtype f64)
refuses(2 "--threads must be" ${model} ${head} ${short} --threads 99999)
refuses(2 "--device-memory must be bytes" ${model} ${head} ${short} --device-memory much)
refuses(2 "--device-memory must be bytes, at least 1" ${model} ${head} ${short} --device-memory 0)
refuses(2 "--json needs a value: --json FILE" ${model} ${head} ${short} --json=)
refuses(2 "--host-memory needs --device-memory" ${model} ${head} ${short} --backend cpu
        --host-memory 1G)
refuses(2 "--backend must be one of" ${model} ${head} ${short} --backend tpu)
if(NOT EXISTS /dev/nvidiactl)
  refuses(2 "--backend cuda: this (program was built without CUDA|machine has no CUDA device)"
          ${model} ${head} ${short} --backend cuda)
endif()
refuses(2 "--graph needs a CUDA device" ${model} ${head} ${short} --backend cpu --graph)
refuses(2 "--host-dtype needs --device-memory" ${model} ${head} ${short} --backend cpu
        --host-dtype fp8)
refuses(2 "--window of at least 2" ${model} ${head} ${short} --window 1 --device-memory 1G)
refuses(2 "unknown argument" ${model} ${head} ${short} --frobnicate)
refuses(2 "--json and --trace must name different files" ${model} ${head} ${short} --json a --trace
        ./a)

# Bad input.
refuses(1 "none.gguf: " --model "${FOLDER}/none.gguf" ${head} ${short})
refuses(1 "cut.gguf: " --model "${FOLDER}/cut.gguf" ${head} ${short})
refuses(1 "short.txt: " --model "${FOLDER}/short.txt" ${head} ${short})
refuses(1 "architecture \"mamba\" is not supported" --model "${FOLDER}/other.gguf" ${head} ${short})
refuses(1 "none.safetensors: " ${model} --head "${FOLDER}/none.safetensors" ${short})
refuses(1 "cut.safetensors: " ${model} --head "${FOLDER}/cut.safetensors" ${short})
refuses(
  1
  "does not fit the model.*feature layer 9.*fc.weight is .64, 128., needed .48, 96..*input_layernorm.*hidden_norm.*q_proj.*k_proj"
  ${model} --head "${FOLDER}/misfit.safetensors" ${short})
refuses(1 "--budget 0 must be larger than --sinks 4 and --window 64" ${model} ${head} ${short}
        --budget 0)
refuses(1 "--budget 68 must be larger" ${model} ${head} ${short} --budget 68)
refuses(1 "--max-budget 511 must be at least --budget 512" ${model} ${head} ${short}
        --min-coverage 0.5 --max-budget 511)
refuses(1 "1000 tokens.*context of 512: pass --truncate" ${model} ${head} --prompt-file
        "${FOLDER}/long.txt")
refuses(1 "--max-tokens 512 leaves no room" ${model} ${head} ${short} --max-tokens 512)
refuses(1 "the prompt is empty" ${model} ${head})
refuses(1 "the prompt is empty" ${model} ${head} --prompt=)
refuses(1 "the prompt is empty" ${model} ${head} --prompt-file "${FOLDER}/empty.txt")
refuses(1 "none.txt: cannot be opened" ${model} ${head} --prompt-file "${FOLDER}/none.txt")
refuses(1 "/dev/zero: has more than 64 MiB" ${model} ${head} --prompt-file /dev/zero)
refuses(1 "cannot be written" ${model} ${head} ${short} --json "${FOLDER}/none/a.json")
refuses(1 "cannot be written" ${model} ${head} ${short} --trace "${FOLDER}")
execute_process(COMMAND mkfifo "${FOLDER}/pipe" COMMAND_ERROR_IS_FATAL ANY)
refuses(1 "pipe: cannot be written: it is not a regular file" ${model} ${head} ${short} --json
        "${FOLDER}/pipe")
refuses(1 "not enough memory" ${model} ${head} ${short} --device-memory 100K)
refuses(1 "not enough memory: 428 tokens.*raise --device-memory" ${model} ${head} ${short}
        --device-memory 1M)

# A failed run leaves what was there, and nothing else.
file(WRITE "${FOLDER}/kept.json" "kept")
refuses(1 "other.gguf" --model "${FOLDER}/other.gguf" ${head} ${short} --json
        "${FOLDER}/kept.json")
file(READ "${FOLDER}/kept.json" kept)
file(GLOB leftovers "${FOLDER}/*.json.*")
if(NOT kept STREQUAL "kept" OR leftovers)
  message(SEND_ERROR "a failed run changed its output: ${kept} ${leftovers}")
endif()
if(EXISTS /dev/full)
  execute_process(
    COMMAND "${GENERATE}" ${model} ${head} ${short} ${few}
    OUTPUT_FILE /dev/full
    RESULT_VARIABLE result
    ERROR_VARIABLE err)
  if(NOT result EQUAL 1 OR NOT err MATCHES "^spectx-generate: standard output cannot be written\n$")
    message(SEND_ERROR "a full disk: exit code ${result}: ${err}")
  endif()
endif()

# Good runs.
runs(full ${model} ${short} ${few} --full)
holds("${full}" 300 prompt_tokens)
holds("${full}" cpu backend)
string(JSON count LENGTH "${full}" token_ids)
if(NOT count EQUAL 8)
  message(SEND_ERROR "--max-tokens 8 gave ${count} tokens")
endif()
file(WRITE "${FOLDER}/target.json" "old")
file(CREATE_LINK target.json "${FOLDER}/all.json" SYMBOLIC)
runs(all ${model} ${head} ${short} ${few} --budget 400)
if(NOT IS_SYMLINK "${FOLDER}/all.json")
  message(SEND_ERROR "the output took the place of a link instead of what it names")
endif()
same("a budget above the length" "${full}" "${all}" token_ids)
if(NOT full_text STREQUAL all_text)
  message(SEND_ERROR "the same tokens, but another text")
endif()
set(sampled --temp 1.5 --top-p 0.9 --seed 7)
runs(full_sampled ${model} ${short} ${few} ${sampled} --full)
runs(all_sampled ${model} ${head} ${short} ${few} ${sampled} --budget 400)
same("a budget above the length, sampled" "${full_sampled}" "${all_sampled}" token_ids)

runs(compared ${model} ${head} ${short} --max-tokens 100 --no-stop --budget 500 --compare --trace
     "${FOLDER}/trace.json")
holds("${compared}" 1.0 comparison equal_tokens)
holds("${compared}" 1.0 comparison top1_agreement)
holds("${compared}" 0.0 comparison mean_kl_nats)
holds("${compared}" 100 comparison positions)
file(READ "${FOLDER}/trace.json" trace)
string(JSON spans LENGTH "${trace}" traceEvents)
if(spans LESS 1000)
  message(SEND_ERROR "the trace has only ${spans} events")
endif()

runs(small ${model} ${head} ${short} --max-tokens 100 --no-stop --budget 80 --compare)
holds("${small}" selected_resident selected path)
holds("${small}" 15360.0 selected kv_bytes_per_step) # 80 rows, 2 KV heads, 32 bytes, 3 layers
runs(again ${model} ${head} ${short} --max-tokens 100 --no-stop --budget 80)
same("a run on its own" "${small}" "${again}" token_ids)
runs(foreign ${model} --head "${FOLDER}/foreign.safetensors" ${short} ${few})
if(NOT foreign_report MATCHES "trained for deep, not for model.gguf" OR again_report MATCHES "trained")
  message(SEND_ERROR "no word, or one too many, on a head for another model:\n${foreign_report}")
endif()
runs(turned ${model} ${head} ${short} --max-tokens 100 --no-stop --budget 80 --head-theta 10000)
same("the head's own theta" "${small}" "${turned}" token_ids)

# The guard.
set(guarded ${model} ${head} ${short} --max-tokens 100 --no-stop --budget 80 --min-coverage 1)
runs(read_all ${guarded} --compare)
holds("${read_all}" 1.0 comparison equal_tokens)
holds("${read_all}" 100 selected guard_full)
holds("${read_all}" 0.0 comparison mean_kl_nats)
runs(capped ${guarded} --max-budget 160 --capped)
holds("${capped}" 0 selected guard_full)
holds("${capped}" 160.0 selected rows_per_step)
runs(content ${model} ${head} ${short} --max-tokens 100 --no-stop --budget 80 --min-coverage 1e-6)
holds("${content}" 0 selected guard_raised)
holds("${content}" 80.0 selected rows_per_step)
same("a guard that never acts" "${small}" "${content}" selected kv_bytes_per_step)

# Where the rows live changes nothing.
set(deep --model "${FOLDER}/deep.gguf" ${head} --prompt-file "${FOLDER}/long.txt" ${few})
runs(one_tier ${deep} --budget 72 --compare)
runs(two_tiers ${deep} --budget 72 --compare --device-memory 18M --host-memory 64M)
holds("${two_tiers}" selected_offloaded selected path)
same("two tiers" "${one_tier}" "${two_tiers}" token_ids)
same("two tiers" "${one_tier}" "${two_tiers}" full token_ids)
same("two tiers" "${one_tier}" "${two_tiers}" comparison mean_kl_nats)
runs(fp8 ${deep} --budget 72 --device-memory 18M --host-memory 64M --host-dtype fp8)
holds("${fp8}" selected_offloaded selected path)

runs(cut ${model} ${head} --prompt-file "${FOLDER}/long.txt" ${few} --truncate)
holds("${cut}" 504 prompt_tokens)
runs(chat ${model} ${head} ${short} ${few} --chat)
runs(cut_chat ${model} ${head} --prompt-file "${FOLDER}/long.txt" ${few} --truncate --chat)
holds("${cut_chat}" 256 prompt_token_ids 0) # <|im_start|>
runs(bytes ${model} ${head} --prompt-file "${FOLDER}/bytes.txt" ${few})
holds("${bytes}" 255 prompt_token_ids 0)
runs(one_token ${model} ${head} --prompt a ${few})
runs(two_tokens ${model} ${head} --prompt ab ${few} --compare)
runs(exact ${model} ${head} ${short} ${few} --dtype f32 --budget 80)
execute_process(COMMAND "${GENERATE}" --help RESULT_VARIABLE result OUTPUT_VARIABLE out)
if(NOT result EQUAL 0 OR NOT out MATCHES "--truncate")
  message(SEND_ERROR "--help: exit code ${result}")
endif()
