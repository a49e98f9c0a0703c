// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <nlohmann/json.hpp>

#include "catch.hpp"
#include "support/run_program.hpp"
#include "support/tiny_gguf.hpp"

using namespace spectx::test;
using nlohmann::json;

namespace {

constexpr const char* kLlama =
    "--layers 32 --query-heads 32 --kv-heads 8 --hidden 4096 --vocab 128256 --feed-forward 14336 "
    "--length 34816 ";
constexpr const char* kConfig = R"({"model_type": "llama", "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "hidden_size": 4096,
    "intermediate_size": 14336, "vocab_size": 128256, "torch_dtype": "bfloat16",
    "max_position_embeddings": 131072,
    "rope_scaling": {"rope_type": "llama3", "factor": 8.0}})";

ProgramRun plan(const std::string& arguments) {
  return run_program(std::string(SPECTX_PLAN) + " " + arguments + " 2>/dev/null");
}

/// Exit code and the line on standard error; nothing may be on standard output.
void check_refused(const std::string& arguments, int exit_code, const std::string& what) {
  CAPTURE(arguments);
  CHECK(plan(arguments).out.empty());
  const ProgramRun run =
      run_program(std::string(SPECTX_PLAN) + " " + arguments + " 2>&1 >/dev/null");
  CAPTURE(run.out);
  CHECK(run.exit_code == exit_code);
  CHECK(run.out.starts_with("spectx-plan: "));
  CHECK(run.out.find(what) != std::string::npos);
  CHECK(std::count(run.out.begin(), run.out.end(), '\n') == 1);
}

json plan_json(const std::string& arguments) {
  const ProgramRun run = plan(arguments + " --json");
  REQUIRE(run.exit_code == 0);
  return json::parse(run.out);
}

/// A change of kConfig.
std::string with(const json& change) {
  json config = json::parse(kConfig);
  config.merge_patch(change);
  return config.dump();
}

}  // namespace

TEST_CASE("a table and the same as JSON") {
  CHECK(plan(kLlama).out.find("arena of pages") != std::string::npos);
  const json j = plan_json(kLlama);
  CHECK(j["plan"]["group_layers"] == 4);
  CHECK(j["plan"]["slots"] == 4096);
  CHECK(j["device_bytes"]["model"] == 16'060'522'496);  // Llama-3.1-8B's parameters, 2 bytes each
  const json& d = j["device_bytes"];
  std::int64_t sum = 0;
  for (const char* item : {"model", "head_weights", "head_workspace", "scratch", "pool_tables",
                           "step_lists", "staging", "arena"}) {
    sum += d[item].get<std::int64_t>();
  }
  CHECK(sum == d["total"]);
  CHECK(d["scratch"] > 0);
  CHECK(d["total"] <= d["cap"]);
  CHECK(j["thresholds"]["lengths"].size() == 9);
  CHECK_FALSE(j.contains("predicted_best"));
  const json rated = plan_json(std::string(kLlama) + "--device-rate 3000 --link-rate 50");
  CHECK(rated["predicted_best"]["tokens_per_s"] >= rated["predicted_step"]["tokens_per_s"]);
  const json fp8 = plan_json(std::string(kLlama) + "--host-dtype fp8");
  CHECK(fp8["plan"]["host_dtype"] == "f8_e4m3");
  CHECK(fp8["plan"]["group_layers"] == 8);
  CHECK(fp8["plan"]["host_page_bytes"] == 64 * 8 * (8 * 256 + 64));
  const json guarded = plan_json(std::string(kLlama) + "--max-budget 8192");
  CHECK(guarded["plan"]["max_budget"] == 8192);
  CHECK(guarded["plan"]["slots"] == 8192);  // two budgets are fewer
  const json one = plan_json(std::string(kLlama) + "--one-memory --requests 8");
  CHECK(one["plan"]["slots"] == 0);
  CHECK(one["host_bytes"]["cap"] == 0);
}

TEST_CASE("the paper's thresholds") {
  const json literal = plan_json(std::string(kLlama) + "--model paper --no-head --requests 4");
  const json corrected =
      plan_json(std::string(kLlama) + "--model paper-corrected --requests 4 --no-head");
  CHECK(literal["thresholds"]["unit"] == "layers");
  REQUIRE(literal["thresholds"]["lengths"].size() == 33);
  CHECK(literal["thresholds"]["lengths"][0] == corrected["thresholds"]["lengths"][0]);
  CHECK(literal["thresholds"]["lengths"][32] > corrected["thresholds"]["lengths"][32]);
}

TEST_CASE("config.json gives what its dimensions as flags give") {
  const TemporaryFile file("config.json", kConfig);
  const json by_file = plan_json("--length 34816 --config " + file.path());
  const json by_flags = plan_json(kLlama);
  CHECK(by_file["device_bytes"] == by_flags["device_bytes"]);
  CHECK(by_file["thresholds"] == by_flags["thresholds"]);
  CHECK(by_file["model"]["context_length"] == 131072);
  CHECK(by_file["model"]["notes"].size() == 1);  // RoPE is scaled
}

TEST_CASE("head dims, tied embeddings and windows of a config.json") {
  const TemporaryFile wide("wide.json", with({{"model_type", "qwen3"}, {"head_dim", 64}}));
  CHECK(plan_json("--config " + wide.path())["model"]["k_dim"] == 64);
  const TemporaryFile tied("tied.json", with({{"tie_word_embeddings", true}}));
  CHECK(plan_json("--config " + tied.path())["device_bytes"]["model"] ==
        16'060'522'496 - 2LL * 128'256 * 4096);
  const TemporaryFile off(
      "off.json",
      with({{"model_type", "qwen2"}, {"use_sliding_window", false}, {"sliding_window", 4096}}));
  CHECK(plan_json("--config " + off.path())["model"]["cached_layers"] == 32);
  const TemporaryFile half("half.json", with({{"model_type", "qwen2"},
                                              {"use_sliding_window", true},
                                              {"sliding_window", 4096},
                                              {"max_window_layers", 16}}));
  CHECK(plan_json("--config " + half.path())["model"]["cached_layers"] == 16);
  const TemporaryFile all("all.json", with({{"model_type", "mistral"}, {"sliding_window", 4096}}));
  check_refused("--config " + all.path(), 1, "no cache to offload");
}

TEST_CASE("a GGUF file gives the shape and the bytes of its tensors") {
  const TemporaryFile file("good.gguf", tiny_gguf("llama"));
  const json j = plan_json("--length 1024 --requests 2 --gguf " + file.path());
  CHECK(j["model"]["layers"] == 2);
  CHECK(j["model"]["kv_heads"] == 2);
  CHECK(j["model"]["k_dim"] == 16);
  CHECK(j["model"]["vocabulary"] == 16);
  CHECK(j["device_bytes"]["model"] == 64 * 16 * 4);
  const TemporaryFile other("other.gguf", tiny_gguf("rwkv"));
  check_refused("--gguf " + other.path(), 1, "none of llama, qwen2 and qwen3");
  const TemporaryFile cut("cut.gguf", tiny_gguf("llama").substr(0, 300));
  check_refused("--gguf " + cut.path(), 1, "cut.gguf");
}

TEST_CASE("wrong usage is told with exit code 2") {
  check_refused("", 2, "--layers is missing");
  check_refused("--frobnicate", 2, "unknown argument");
  check_refused(std::string(kLlama) + "--budget", 2, "needs a value");
  check_refused(std::string(kLlama) + "--budget x", 2, "--budget must be a whole number");
  check_refused(std::string(kLlama) + "--requests 0", 2, "--requests must be");
  check_refused(std::string(kLlama) + "--device-memory 80Q", 2, "--device-memory must be bytes");
  check_refused(std::string(kLlama) + "--hot-buffer nan", 2, "--hot-buffer must be a number");
  check_refused(std::string(kLlama) + "--model mine", 2, "paper-corrected");
  check_refused(std::string(kLlama) + "--link-rate 50", 2, "given together");
  check_refused(std::string(kLlama) + "--config a.json", 2, "comes from the file");
  check_refused("--gguf a --config b", 2, "exclude each other");
  check_refused(std::string(kLlama) + "--one-memory --host-dtype fp8", 2, "needs two memories");
  check_refused(std::string(kLlama) + "--device-memory 0", 2, "bytes, at least 1");
}

TEST_CASE("what cannot be is told with exit code 1 and a way out") {
  check_refused(std::string(kLlama) + "--device-memory 16G", 1, "--device-memory");
  check_refused(std::string(kLlama) + "--device-memory 18G --host-memory 1G", 1, "--host-memory");
  check_refused(std::string(kLlama) + "--host-dtype bf16", 2,
                "--host-dtype must be one of fp8, int8");
  check_refused(std::string(kLlama) + "--budget 68", 1, "budget must be larger than sinks");
  check_refused(std::string(kLlama) + "--max-budget 2047", 1, "max_budget must be 0 or at least");
  check_refused("--layers 3 --query-heads 3 --kv-heads 2 --hidden 99 --vocab 10", 1, "kv_heads");
  check_refused("--config no-such-file.json", 1, "cannot open: No such file");
  check_refused("--config .", 1, "not a regular file");
  check_refused("--gguf no-such-file.gguf", 1, "no-such-file.gguf");
  CHECK(run_program(std::string(SPECTX_PLAN) + " --help >/dev/full 2>/dev/null").exit_code == 1);
}

TEST_CASE("broken config files are refused by name") {
  const auto check = [](const std::string& text, const std::string& what) {
    const TemporaryFile file("broken.json", text);
    check_refused("--config " + file.path(), 1, what);
  };
  check("", "not JSON");
  check("{\"model_type\": ", "not JSON");
  check("[1, 2]", "not a JSON object");
  check("{}", "model_type");
  check(with({{"model_type", "mamba"}}), "none of llama, mistral, qwen2 and qwen3");
  check(with({{"num_hidden_layers", nullptr}}), "num_hidden_layers is missing");
  check(with({{"num_hidden_layers", -1}}), "num_hidden_layers must be");
  check(with({{"num_hidden_layers", 1e30}}), "num_hidden_layers must be");
  check(with({{"num_attention_heads", 0}}), "num_attention_heads must be positive");
  check(with({{"hidden_size", "big"}}), "hidden_size must be");
  check(with({{"hidden_size", 4097}}), "head_dim is missing");
  check(with({{"torch_dtype", "int3"}}), "int3");
  check(with({{"layer_types", {"full_attention"}}}), "layer_types must have");
  check(with({{"vocab_size", std::int64_t{1} << 39}}), "beyond 2^20");
}
