# Runs spectx-eval as a user does: every bad input, then good runs whose figures must hold together.
# cmake -DEVAL=program -DTINY_FILES=program -DFOLDER=folder -P eval_program_test.cmake
cmake_policy(VERSION 3.25)
file(REMOVE_RECURSE "${FOLDER}")
execute_process(COMMAND "${TINY_FILES}" "${FOLDER}" COMMAND_ERROR_IS_FATAL ANY)
file(MAKE_DIRECTORY "${FOLDER}/texts" "${FOLDER}/none")
file(COPY_FILE "${FOLDER}/long.txt" "${FOLDER}/texts/b.txt")
file(READ "${FOLDER}/long.txt" text)
string(REPLACE "line" "word" text "${text}")
file(WRITE "${FOLDER}/texts/a.txt" "${text}")
set(model --model "${FOLDER}/model.gguf")
set(head --head "${FOLDER}/head.safetensors")
set(texts --texts "${FOLDER}/texts")
set(short --lengths 300 --budgets 80 --positions 40 --threads 2 --needles 0)

# refuses(<exit code> <regular expression of the one line> <arguments...>)
function(refuses code pattern)
  execute_process(
    COMMAND "${EVAL}" ${ARGN}
    RESULT_VARIABLE result
    OUTPUT_VARIABLE out
    ERROR_VARIABLE err)
  if(NOT result STREQUAL code
     OR NOT err MATCHES "^spectx-eval: [^\n]*${pattern}[^\n]*\n$"
     OR NOT out STREQUAL "")
    message(SEND_ERROR "${ARGN}\n  exit code ${result} instead of ${code}, or not one line with"
                       " '${pattern}':\n${err}\nstandard output: ${out}")
  endif()
endfunction()

# runs(<name> <arguments...>): leaves the figures in <name>, the table in <name>_table
function(runs name)
  execute_process(
    COMMAND "${EVAL}" ${ARGN} --json "${FOLDER}/${name}.json"
    RESULT_VARIABLE result
    OUTPUT_VARIABLE out
    ERROR_VARIABLE err)
  if(NOT result EQUAL 0)
    message(FATAL_ERROR "${ARGN}\n  exit code ${result}:\n${err}")
  endif()
  file(READ "${FOLDER}/${name}.json" json)
  set(${name} "${json}" PARENT_SCOPE)
  set(${name}_table "${out}" PARENT_SCOPE)
endfunction()

# figure(<variable> <json> <row> <key...>): of the first length
function(figure variable json row)
  string(JSON got GET "${json}" lengths 0 rows ${row} ${ARGN})
  set(${variable} "${got}" PARENT_SCOPE)
endfunction()

# not_less(<what> <number> <number>)
function(not_less what a b)
  if(a LESS b)
    message(SEND_ERROR "${what}: ${a} is less than ${b}")
  endif()
endfunction()

# Wrong usage.
refuses(2 "--model is missing" ${head} ${texts})
refuses(2 "--head is missing" ${model} ${texts})
refuses(2 "--texts is missing" ${model} ${head})
refuses(2 "--budgets must be numbers" ${model} ${head} ${texts} --budgets 80,x)
refuses(2 "--lengths must be numbers" ${model} ${head} ${texts} --lengths 256,)
refuses(2 "--buffers must be numbers" ${model} ${head} ${texts} --buffers 0.5)
refuses(2 "--selectors has no \"best\"" ${model} ${head} ${texts} --selectors head,best)
refuses(2 "--needles must be a whole number" ${model} ${head} ${texts} --needles 21)
refuses(2 "--needle-lead must be a number" ${model} ${head} ${texts} --needle-lead -1)
refuses(2 "--head-theta must be a number" ${model} ${head} ${texts} --head-theta 1)
refuses(2 "--level must be one of head, batch" ${model} ${head} ${texts} --level layer)
refuses(2 "--min-coverage must be a number" ${model} ${head} ${texts} --min-coverage 2)
refuses(2 "--max-budget needs --min-coverage" ${model} ${head} ${texts} --max-budget 100)
refuses(2 "--capped needs --min-coverage" ${model} ${head} ${texts} --capped)
refuses(2 "--hysteresis must be a number" ${model} ${head} ${texts} --min-coverage 1 --hysteresis 1)
refuses(2 "--group must be one of max, mean" ${model} ${head} ${texts} --group sum)
refuses(2 "--positions must be a whole number" ${model} ${head} ${texts} --positions 0)
refuses(2 "unknown argument" ${model} ${head} ${texts} --frobnicate)
refuses(2 "--json, --csv and --plots must name different files" ${model} ${head} ${texts} --json a --csv a)

# Bad input.
refuses(1 "none.gguf: " --model "${FOLDER}/none.gguf" ${head} ${texts} ${short})
refuses(1 "none.safetensors: " ${model} --head "${FOLDER}/none.safetensors" ${texts} ${short})
refuses(1 "does not fit the model" ${model} --head "${FOLDER}/misfit.safetensors" ${texts} ${short})
refuses(1 "none.txt: cannot be opened" ${model} ${head} --texts "${FOLDER}/none.txt" ${short})
refuses(1 "/dev/zero: has more than 64 MiB" ${model} ${head} --texts /dev/zero ${short})
refuses(1 "none: the folder has no files" ${model} ${head} --texts "${FOLDER}/none" ${short})
refuses(1 "bytes.txt: is not UTF-8 at byte 0" ${model} ${head} --texts
        "${FOLDER}/long.txt,${FOLDER}/bytes.txt" ${short})
refuses(1 "no text has 301 tokens .the longest: 300." ${model} ${head} --texts
        "${FOLDER}/short.txt" ${short})
refuses(1 "--lengths 8192 is more than the model's context of 512" ${model} ${head} ${texts})
refuses(1 "--budgets 68 must be larger than --sinks 4 and --window 64" ${model} ${head} ${texts}
        --budgets 68 --lengths 300)
refuses(1 "--lengths 100 leaves no room" ${model} ${head} ${texts} --lengths 100 --budgets 80
        --positions 40)
refuses(1 "--budgets 280 is .*at most 260, or the whole length" ${model} ${head} ${texts}
        --lengths 300 --budgets 80,280 --positions 40)
refuses(1 "20 needles do not fit into 300 tokens" ${model} ${head} ${texts} --lengths 300
        --budgets 80 --positions 40 --needles 20)
refuses(1 "cannot be written" ${model} ${head} ${texts} ${short} --json "${FOLDER}/none/x/a.json")

# Good runs: two texts, every selector, budgets below and above the length.
runs(all ${model} ${head} ${texts} --lengths 300,400 --budgets 80,150,400 --positions 40
     --needles 1 --csv "${FOLDER}/all.csv" --plots "${FOLDER}/all.svg")
string(JSON count LENGTH "${all}" lengths)
string(JSON rows LENGTH "${all}" lengths 0 rows)
if(NOT count EQUAL 2 OR NOT rows EQUAL 18)
  message(SEND_ERROR "${count} lengths, ${rows} rows")
endif()
string(JSON first GET "${all}" lengths 0 texts 0)
if(NOT first STREQUAL "a.txt")
  message(SEND_ERROR "the texts are not in order: ${first} is first")
endif()
# Rows: selector by selector (head, shared, per-layer, pages, recent, random), three budgets each.
foreach(budget 0 1)
  math(EXPR row "${budget} + 3")
  figure(shared "${all}" ${row} recall)
  math(EXPR row "${budget} + 6")
  figure(per_layer "${all}" ${row} recall)
  not_less("the best sets of layers against the best shared set" ${per_layer} ${shared})
  foreach(selector 0 12 15)
    math(EXPR row "${budget} + ${selector}")
    figure(other "${all}" ${row} recall)
    not_less("the best shared set against row ${row}" ${shared} ${other})
    figure(worst "${all}" ${row} recall_worst_layer)
    not_less("the mean of layers against the worst" ${other} ${worst})
  endforeach()
  math(EXPR row "${budget} + 9")
  figure(pages "${all}" ${row} recall)
  not_less("the best sets of layers against pages" ${per_layer} ${pages})
endforeach()
foreach(row 2 5 8 11 14 17)
  foreach(expected "recall;1.0" "loss_increase;0.0" "top1_agreement;1.0" "kl;0.0")
    list(GET expected 0 key)
    list(GET expected 1 value)
    figure(got "${all}" ${row} ${key})
    if(NOT got EQUAL value)
      message(SEND_ERROR "a budget above the length, row ${row}: ${key} is ${got}")
    endif()
  endforeach()
endforeach()
# A larger buffer never misses more; the most recent tokens are always there.
foreach(buffer 1 2 3 4)
  math(EXPR before "${buffer} - 1")
  figure(larger "${all}" 0 miss_rate ${buffer})
  figure(smaller "${all}" 0 miss_rate ${before})
  not_less("misses of a smaller buffer" ${smaller} ${larger})
endforeach()
figure(missed "${all}" 12 miss_rate 0)
if(NOT missed EQUAL 0)
  message(SEND_ERROR "the most recent tokens miss ${missed}")
endif()
# A model of random weights finds no needle.
string(JSON hidden GET "${all}" lengths 0 needles_of_full_attention 0 hidden)
string(JSON found GET "${all}" lengths 0 needles_of_full_attention 0 found)
if(NOT hidden EQUAL 2 OR NOT found EQUAL 0)
  message(SEND_ERROR "${found} of ${hidden} needles found")
endif()
file(READ "${FOLDER}/all.svg" plots)
string(REGEX MATCHALL "<polyline" lines "${plots}")
list(LENGTH lines count)
if(NOT count EQUAL 24) # 6 recalls, 4 losses, 2 budgets of misses, at each length
  message(SEND_ERROR "${count} lines in the charts")
endif()
file(STRINGS "${FOLDER}/all.csv" lines)
list(LENGTH lines count)
if(NOT count EQUAL 37 OR NOT all_table MATCHES "\n300 tokens, 2 texts, last 40 positions")
  message(SEND_ERROR "${count} lines in the CSV file; the table:\n${all_table}")
endif()

# What was measured beside it, threads and other texts change nothing.
runs(alone ${model} ${head} ${texts} --max-texts 1 ${short} --selectors head)
figure(alone_loss "${alone}" 0 loss_increase_of_text 0)
figure(loss "${all}" 0 loss_increase_of_text 0)
if(NOT alone_loss EQUAL loss)
  message(SEND_ERROR "the head alone: loss increase ${alone_loss} instead of ${loss}")
endif()

# Texts measured side by side have the figures that they have one after the other.
runs(side ${model} ${head} ${texts} --lengths 300,400 --budgets 80,150,400 --positions 40
     --needles 1 --jobs 3 --threads 2)
string(JSON one GET "${all}" lengths)
string(JSON many GET "${side}" lengths)
if(NOT many STREQUAL one)
  message(SEND_ERROR "--jobs 3 changes figures: ${many} instead of ${one}")
endif()

# The guard: one that asks for nothing changes nothing, one that asks for all reads everything.
runs(calm ${model} ${head} ${texts} ${short} --selectors head --min-coverage 0.0001)
figure(loss "${calm}" 0 loss_increase)
figure(guarded "${calm}" 1 loss_increase)
figure(rows "${calm}" 1 rows_read)
if(NOT loss EQUAL guarded OR NOT rows EQUAL 80)
  message(SEND_ERROR "a guard that asks for nothing: ${guarded}, not ${loss}; ${rows} rows")
endif()
runs(alarmed ${model} ${head} ${texts} ${short} --selectors head --min-coverage 1 --level batch)
figure(guarded "${alarmed}" 1 loss_increase)
figure(rows "${alarmed}" 1 rows_read)
if(NOT guarded EQUAL 0 OR NOT rows EQUAL 280.5)
  message(SEND_ERROR "a guard that asks for all: ${guarded}, ${rows} rows")
endif()
runs(capped ${model} ${head} ${texts} ${short} --selectors head --min-coverage 1 --capped
     --max-budget 120)
figure(rows "${capped}" 1 rows_read)
if(NOT rows EQUAL 120)
  message(SEND_ERROR "a guard that asks for all, capped at 120, reads ${rows} rows")
endif()

execute_process(COMMAND "${EVAL}" --help RESULT_VARIABLE result OUTPUT_VARIABLE out)
if(NOT result EQUAL 0 OR NOT out MATCHES "--selectors")
  message(SEND_ERROR "--help: exit code ${result}")
endif()
