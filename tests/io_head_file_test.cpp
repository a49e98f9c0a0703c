// SPDX-License-Identifier: Apache-2.0
#include "spectx/io/head_file.hpp"

#include <nlohmann/json.hpp>

#include "catch.hpp"
#include "io_support.hpp"
#include "spectx/half.hpp"
#include "spectx/io/safetensors.hpp"
#include "support/backends.hpp"
#include "support/tiny_head.hpp"

namespace spectx::test {
namespace {

const ModelShape kTarget{.layers = 4,
                         .query_heads = 6,
                         .kv_heads = 2,
                         .k_dim = 8,
                         .v_dim = 8,
                         .hidden = 48,
                         .vocabulary = 10,
                         .dtype = DType::f32,
                         .rope = {},
                         .attention = {}};

std::vector<float> embeddings(40 * 48);

io::LoadedHead load(Backend& backend, const std::string& bytes, io::HeadOptions options = {}) {
  const TemporaryFolder folder;
  return io::load_head(backend, folder.write("head.safetensors", bytes), kTarget,
                       matrix_view(embeddings.data(), DType::f32, 10, 48), options, {});
}

std::string refusal(const std::string& bytes) {
  const auto backend = make_backend({.threads = 1});
  return message_of<Error>([&] { load(*backend, bytes); });
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  REQUIRE(from.size() == to.size());  // the header's length stays right
  const std::size_t at = text.find(from);
  REQUIRE(at != std::string::npos);
  return text.replace(at, from.size(), to);
}

}  // namespace

TEST_CASE("A head's tensors and metadata arrive") {
  const auto backend = make_backend({.threads = 1});
  const std::string bytes = TinyHead{.feature_layers = "[0,  2]"}.safetensors();
  const auto head = load(*backend, bytes, {.dtype = DType::f32});
  const HeadWeights& w = head.weights;
  REQUIRE(w.shape.query_heads == 4);
  REQUIRE(w.shape.kv_heads == 2);
  REQUIRE(w.shape.k_dim == 8);
  REQUIRE(w.feature_layers == std::vector<index_t>{1, 3});  // what enters these layers
  REQUIRE(w.rope.theta == 10000);
  REQUIRE(w.norm_eps == 1e-5F);
  REQUIRE(w.fc.shape[0] == 48);
  REQUIRE(w.fc.shape[1] == 96);
  REQUIRE(w.q_proj.shape[0] == 32);
  REQUIRE(w.k_proj.shape[0] == 16);
  REQUIRE(w.input_norm.rank == 1);
  REQUIRE(w.embeddings.shape[0] == 10);

  const auto file = io::Safetensors::parse(bytes_of(bytes), "head");
  const auto& k_proj = file.at("midlayer.self_attn.k_proj.weight").bytes;
  REQUIRE(std::memcmp(w.k_proj.data, k_proj.data(), k_proj.size()) == 0);
}

TEST_CASE("Matrices take the type that is asked for, norms stay f32") {
  const auto backend = make_backend({.threads = 1});
  const std::string bytes = TinyHead{}.safetensors();
  const auto wide = load(*backend, bytes, {.dtype = DType::f32});
  const auto narrow = load(*backend, bytes);
  REQUIRE(narrow.weights.fc.dtype == DType::bf16);
  REQUIRE(narrow.weights.hidden_norm.dtype == DType::f32);
  for (index_t i = 0; i < wide.weights.fc.size(); ++i) {
    REQUIRE(narrow.weights.fc.as<bf16_t>()[i].bits ==
            from_float<bf16_t>(wide.weights.fc.as<float>()[i]).bits);
  }
}

TEST_CASE("A head that does not fit is refused with everything that differs") {
  const std::string message = refusal(
      TinyHead{.hidden = 64, .query_heads = 3, .dim = 7, .feature_layers = "[1, 3]"}.safetensors());
  CAPTURE(message);
  for (const char* part :
       {"head.safetensors", "fc.weight is [64, 128], needed [48, 96]",
        "midlayer.input_layernorm.weight is [64], needed [48]", "midlayer.hidden_norm.weight",
        "midlayer.self_attn.q_proj.weight is [21, 128], needed [21, 96]",
        "midlayer.self_attn.k_proj.weight", "feature layer 3",
        "3 query heads are no multiple of 2 KV heads", "21 rows: no even number"}) {
    REQUIRE(message.find(part) != std::string::npos);
  }
}

TEST_CASE("Metadata that are missing or malformed are named") {
  const std::string good = TinyHead{}.safetensors();
  REQUIRE(refusal(replaced(good, "head_dim", "head_dum")).find("head_dim is missing") !=
          std::string::npos);
  REQUIRE(refusal(replaced(good, "1e-05", "1e-xx")).find("rms_norm_eps must be a number") !=
          std::string::npos);
  REQUIRE(refusal(replaced(good, "\"10000\"", "\"-1000\"")).find("rope_theta must be a positive") !=
          std::string::npos);
  for (const char* list : {"1, 14]", "[1, 14", "[]", "[1,]", "[2, 1]", "[1, 1]", "[-1]", "[a]",
                           "[1 ; 2]", "", "[", "[99999999999999999999]"}) {
    CAPTURE(list);
    REQUIRE(refusal(TinyHead{.feature_layers = list}.safetensors())
                .find("feature_layers must be an ascending list") != std::string::npos);
  }
}

TEST_CASE("How query heads combine is what the file says, else their maximum") {
  const auto backend = make_backend({.threads = 1});
  const auto with = [](const std::string& how) {
    return TinyHead{.more_metadata = R"(,"group_reduce":")" + how + '"'}.safetensors();
  };
  REQUIRE(load(*backend, TinyHead{}.safetensors()).weights.reduce == GroupReduce::max);
  REQUIRE(load(*backend, with("max")).weights.reduce == GroupReduce::max);
  REQUIRE(load(*backend, with("mean")).weights.reduce == GroupReduce::mean);
  REQUIRE(refusal(with("sum")).find("group_reduce must be max or mean") != std::string::npos);
}

TEST_CASE("The model that a head was trained for is what the file says") {
  const auto backend = make_backend({.threads = 1});
  REQUIRE(load(*backend, TinyHead{}.safetensors()).target.empty());
  const TinyHead named{.more_metadata = R"(,"target":"Llama\u001b[2J")"};
  REQUIRE(load(*backend, named.safetensors()).target == R"(Llama\x1b[2J)");
}

TEST_CASE("A missing tensor is named") {
  const std::string good = TinyHead{}.safetensors();
  REQUIRE(refusal(replaced(good, "fc.weight", "fd.weight")).find("fc.weight is missing") !=
          std::string::npos);
  REQUIRE(refusal(replaced(good, "q_proj.weight", "q_prod.weight")).find("not an EAGLE-3 head") !=
          std::string::npos);
}

TEST_CASE("A single file with a config in it is read as the folder that it was made of") {
  const TemporaryFolder folder;
  const std::string heads = std::string(SPECTX_TEST_DATA) + "/heads/";
  const std::string bytes = contents(heads + "speculators/model.safetensors");
  std::uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, bytes.data(), 8);
  const auto with = [&](const nlohmann::json& metadata) {
    auto header = nlohmann::json::parse(bytes.substr(8, header_bytes));
    header["__metadata__"] = metadata;
    const std::string text = header.dump();
    return folder.write("head.safetensors",
                        raw(std::uint64_t{text.size()}) + text + bytes.substr(8 + header_bytes));
  };
  const auto backend = make_backend({.threads = 1});
  const ModelShape target{.layers = 12,
                          .query_heads = 4,
                          .kv_heads = 2,
                          .k_dim = 8,
                          .v_dim = 8,
                          .hidden = 16,
                          .vocabulary = 40,
                          .dtype = DType::f32,
                          .rope = {},
                          .attention = {}};
  const auto read = [&](const std::string& path) {
    return io::load_head(*backend, path, target, matrix_view(embeddings.data(), DType::f32, 40, 16),
                         {.dtype = DType::f32}, {});
  };
  const auto expected = read(heads + "speculators");
  const std::string config = contents(heads + "speculators/config.json");
  const auto got = read(with({{"config", config}}));
  REQUIRE(got.weights.feature_layers == expected.weights.feature_layers);
  REQUIRE(got.weights.rope.theta == expected.weights.rope.theta);
  REQUIRE(got.weights.rope.scaling == RopeScaling::yarn);
  REQUIRE(got.weights.shape.normed_features == 3);
  // Of a single file, its own embeddings serve.
  REQUIRE(got.weights.embeddings.data != embeddings.data());
  REQUIRE(expected.weights.embeddings.data == embeddings.data());
  const auto other =
      read(with({{"config", config}, {"rope_theta", "5000"}, {"feature_layers", "[1, 2, 3]"}}));
  REQUIRE(other.weights.rope.theta == 5000);
  REQUIRE(other.weights.rope.factor == 4);
  REQUIRE(other.weights.feature_layers == std::vector<index_t>{2, 3, 4});
  const auto own = read(
      with({{"feature_layers", "[1, 2, 3]"},
            {"num_attention_heads", "4"},
            {"num_key_value_heads", "2"},
            {"head_dim", "8"},
            {"rope_theta", "7000"},
            {"rms_norm_eps", "1e-06"},
            {"rope_scaling",
             R"({"rope_type": "yarn", "factor": 4, "original_max_position_embeddings": 64})"}}));
  REQUIRE(own.weights.rope.theta == 7000);
  REQUIRE(own.weights.rope.scaling == RopeScaling::yarn);
  REQUIRE(own.weights.rope.original_length == 64);
  REQUIRE_THROWS_AS(read(with({{"config", "{"}})), FileError);
  REQUIRE_THROWS_AS(read(with({{"config", config}, {"feature_layers", "null"}})), FileError);
}

}  // namespace spectx::test
