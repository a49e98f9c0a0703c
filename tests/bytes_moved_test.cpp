// SPDX-License-Identifier: Apache-2.0
#include "spectx/bytes_moved.hpp"

#include <array>

#include "catch.hpp"

using namespace spectx;

namespace {

TensorView matrix(DType dtype, index_t rows, index_t cols) {
  return matrix_view(nullptr, dtype, rows, cols, cols + 3);  // the gaps are not moved
}

/// A decode step at length 1,000, a prompt chunk of 200 rows, and a short request.
struct ThreeItems {
  ThreeItems() { batch.items = items; }

  std::array<ScheduledItem, 3> items = {
      {{{0}, 999, 1, false, true}, {{1}, 300, 200, true, false}, {{2}, 19, 1, false, true}}};
  Batch batch;
};

KVView rows_of_two_heads() {
  KVView kv;
  kv.dtype = DType::bf16;
  kv.kv_heads = 2;
  kv.k_dim = 64;
  kv.v_dim = 32;
  kv.max_budget = 100;
  return kv;
}

}  // namespace

TEST_CASE("bytes_moved of the operations of a layer") {
  const TensorView x = matrix(DType::f32, 3, 10);
  const TensorView w = matrix(DType::bf16, 5, 10);
  const TensorView out = matrix(DType::f32, 3, 5);
  REQUIRE(bytes_moved(MatmulArgs{.x = x, .w = w, .out = out}) == 120 + 100 + 60);
  REQUIRE(bytes_moved(MatmulArgs{.x = x, .w = w, .out = out, .beta = 1}) == 120 + 100 + 120);
  REQUIRE(bytes_moved(EmbedArgs{.table = w, .tokens = {}, .out = x}) == 120 + 60);
  const TensorView weight = vector_view(nullptr, DType::f16, 10);
  REQUIRE(bytes_moved(RmsNormArgs{.x = x, .weight = weight, .out = x}) == 260);
  REQUIRE(bytes_moved(SwigluArgs{.gate = x, .up = x, .out = x}) == 360);
  REQUIRE(bytes_moved(AddArgs{.a = x, .b = x, .out = x}) == 360);
  REQUIRE(bytes_moved(ArgmaxArgs{.logits = x, .out = {}}) == 132);
  RopeArgs rope;
  rope.x = split_heads(x, 5, 2);
  REQUIRE(bytes_moved(rope) == 240);
}

TEST_CASE("bytes_moved of the operations on cached rows") {
  const ThreeItems three;
  KVView kv = rows_of_two_heads();
  AttendArgs attend;
  attend.q = split_heads(matrix(DType::f32, 202, 4 * 64), 4, 64);
  attend.out = split_heads(matrix(DType::f32, 202, 4 * 32), 4, 32);
  attend.batch = &three.batch;
  attend.kv = kv;
  const index_t activations = 202 * 4 * 96 * 4;
  REQUIRE(bytes_moved(attend) == (1000 + 500 + 20) * 2 * 96 * 2 + activations);
  const std::int32_t counts = 0;
  attend.kv.counts = &counts;
  REQUIRE(bytes_moved(attend) == (100 + 500 + 20) * 2 * 96 * 2 + activations);

  AppendRowsArgs append;
  append.k = split_heads(matrix(DType::f32, 7, 2 * 64), 2, 64);
  append.to = kv;
  REQUIRE(bytes_moved(append) == 7 * 128 * 6);
  append.v = split_heads(matrix(DType::f32, 7, 2 * 32), 2, 32);
  REQUIRE(bytes_moved(append) == 7 * 192 * 6);
}

TEST_CASE("bytes_moved of a selection") {
  const ThreeItems three;
  ScoreArgs score;
  score.batch = &three.batch;
  score.keys = rows_of_two_heads();
  score.scores = split_heads(matrix(DType::f32, 3, 2 * 1000), 2, 1000);
  REQUIRE(bytes_moved(score) == (999 + 19) * 2 * (64 * 2 + 4));

  TopKArgs top_k;
  top_k.batch = &three.batch;
  top_k.scores = score.scores;
  top_k.rule = {.budget = 100, .sinks = 4, .recent_window = 16};
  REQUIRE(bytes_moved(top_k) == 2 * (980 * 4 + 100 * 4) + 2 * 20 * 4);
  const std::array<std::int32_t, 3> map = {0, 1, 1};
  top_k.head_of_kv_head = {map.data(), 3};
  REQUIRE(bytes_moved(top_k) == 3 * (980 * 4 + 100 * 4) + 3 * 20 * 4);

  CoverageArgs coverage;
  coverage.batch = &three.batch;
  coverage.keys = score.keys;
  coverage.selection.max_budget = 100;
  REQUIRE(bytes_moved(coverage) == 120 * 2 * 64 * 2);

  JoinHeadsArgs join;
  join.batch = &three.batch;
  join.scores = score.scores;
  REQUIRE(bytes_moved(join) == (1000 + 20) * 3 * 4);
  GuardArgs guard;
  guard.batch = &three.batch;
  guard.kv_heads = 2;
  REQUIRE(bytes_moved(guard) == 3 * 4 * 4);
}

TEST_CASE("bytes_moved of rings, slots and moves between the tiers") {
  const ThreeItems three;
  StoreRingArgs store;
  store.batch = &three.batch;
  store.rows = matrix(DType::f32, 202, 10);
  store.ring = {.dtype = DType::bf16, .rank = 3, .shape = {3, 64, 10}, .strides = {640, 10, 1}};
  REQUIRE(bytes_moved(store) == (1 + 64 + 1) * 10 * 6);
  LoadRingArgs load;
  load.ring = store.ring;
  load.out = matrix(DType::f32, 3, 10);
  REQUIRE(bytes_moved(load) == 30 * 6);

  KVPoolView pool;
  pool.layers = 5;
  pool.group_layers = 2;
  pool.kv_heads = 2;
  pool.row_bytes = 192;
  pool.run = make_host_run(DType::bf16, DType::bf16, 96, 2);
  pool.slots = 128;
  UpdateSlotsArgs update;
  update.batch = &three.batch;
  update.pool = pool;
  update.selection.max_budget = 100;
  REQUIRE(bytes_moved(update) == (2 * 256 + 3 * 120) * 2 * 4);
  GatherRowsArgs gather;
  gather.pool = pool;
  REQUIRE(bytes_moved(gather, 7) == 2 * 7 * 2 * 192);
  gather.first_layer = 1;
  REQUIRE(bytes_moved(gather, 7) == 2 * 7 * 192);
  gather.first_layer = 0;
  gather.group = 2;  // the last one has one layer
  REQUIRE(bytes_moved(gather, 7) == 2 * 7 * 192);
  ScatterRowsArgs scatter;
  scatter.pool = pool;
  REQUIRE(bytes_moved(scatter, 32 * 3) == 2 * 96 * 2 * 192);
  MoveRowsArgs move;
  move.pool = pool;
  move.first = 10;
  move.last = 30;
  REQUIRE(bytes_moved(move) == 2 * 20 * 2 * 2 * 192);
  move.layer = 1;
  REQUIRE(bytes_moved(move) == 2 * 20 * 2 * 192);

  // One byte a number, and two scales of 4 bytes, in the host tier.
  const HostRun lossy = make_host_run(DType::bf16, DType::f8_e4m3, 96, 2);
  gather.pool.run = scatter.pool.run = move.pool.run = lossy;
  gather.group = 0;
  REQUIRE(bytes_moved(gather, 7) == 7 * 2 * (192 + 104));
  REQUIRE(bytes_moved(scatter, 32 * 3) == 96 * 2 * (192 + 104));
  REQUIRE(bytes_moved(move) == 2 * 20 * 2 * 192);
  move.to.kind = RowPlace::Kind::host;
  REQUIRE(bytes_moved(move) == 20 * 2 * (192 + 104));
}
