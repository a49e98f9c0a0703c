// SPDX-License-Identifier: Apache-2.0
// What a host hands to the operations of a selection and of the tiers is checked, in the same words
// on every backend.
#include "support/argument_check.hpp"
#include "support/backends.hpp"

using namespace spectx;
using namespace spectx::test;
using C = ArgumentCase;

TEST_CASE("wrong arguments of scores and coverage are refused by name") {
  const NamedBackend b = GENERATE(from_range(backends()));
  CAPTURE(b.name);
  const C c(*b.backend);
  const TensorView q = c.heads(2, C::kQueryHeads, C::kDim);
  const TensorView log_sum = c.matrix(2, C::kQueryHeads);
  const TensorView scores = c.heads(2, C::kHeads, C::kLength);
  ArgumentCheck<ScoreArgs>(
      *b.backend, &Backend::score, "score",
      {.q = q, .keys = c.kv, .batch = &c.batch, .log_sum = log_sum, .scores = scores})
      .tensors({&ScoreArgs::q, &ScoreArgs::log_sum, &ScoreArgs::scores})
      .invalid({[](ScoreArgs& a) { a.q.shape[0] = 1; }, [](ScoreArgs& a) { a.q.shape[2] = 4; },
                [](ScoreArgs& a) { a.q.shape[1] = 3; },
                [](ScoreArgs& a) { a.scores.dtype = DType::bf16; },
                [](ScoreArgs& a) { a.log_sum.dtype = DType::f16; },
                [](ScoreArgs& a) { a.scores.shape[0] = 1; },
                [](ScoreArgs& a) { a.scores.shape[1] = 1; },
                [](ScoreArgs& a) { a.keys.kv_heads = 0; }})
      .unsupported({[](ScoreArgs& a) { a.keys.dtype = DType::i8; },
                    [](ScoreArgs& a) { a.q.dtype = DType::i32; }});
  ArgumentCheck<JoinHeadsArgs>(*b.backend, &Backend::join_heads, "join_heads",
                               {.scores = scores, .batch = &c.batch})
      .tensors({&JoinHeadsArgs::scores})
      .invalid({[](JoinHeadsArgs& a) { a.scores.dtype = DType::f16; },
                [](JoinHeadsArgs& a) { a.scores.shape[0] = 1; }});
  ArgumentCheck<CoverageArgs>(
      *b.backend, &Backend::coverage, "coverage",
      {.q = q, .keys = c.kv, .batch = &c.batch, .log_sum = log_sum, .selection = c.selection})
      .tensors({&CoverageArgs::q, &CoverageArgs::log_sum})
      .invalid({[](CoverageArgs& a) { a.q.shape[2] = 4; },
                [](CoverageArgs& a) { a.selection.ids.size = 31; },
                [](CoverageArgs& a) { a.selection.counts.size = 3; },
                [](CoverageArgs& a) { a.selection.coverage.size = 7; },
                [](CoverageArgs& a) { a.selection.coverage.data = nullptr; },
                [](CoverageArgs& a) { a.selection.max_budget = 0; },
                [](CoverageArgs& a) {
                  a.budgets = {a.batch->item.data, 1};
                },
                [](CoverageArgs& a) {
                  a.head_of_kv_head = {nullptr, 2};
                }})
      .unsupported({[](CoverageArgs& a) { a.keys.dtype = DType::f8_e4m3; }});
}

TEST_CASE("wrong arguments of a choice and its guard are refused by name") {
  const NamedBackend b = GENERATE(from_range(backends()));
  CAPTURE(b.name);
  const C c(*b.backend);
  const TensorView scores = c.heads(2, C::kHeads, C::kLength);
  ArgumentCheck<TopKArgs>(*b.backend, &Backend::top_k, "top_k",
                          {.scores = scores, .batch = &c.batch, .rule = c.rule, .out = c.selection})
      .tensors({&TopKArgs::scores})
      .invalid({[](TopKArgs& a) { a.rule.budget = 9; }, [](TopKArgs& a) { a.rule.budget = 0; },
                [](TopKArgs& a) { a.rule.sinks = -1; }, [](TopKArgs& a) { a.rule.sinks = 7; },
                [](TopKArgs& a) { a.out.ids.size = 31; }, [](TopKArgs& a) { a.out.counts = {}; },
                [](TopKArgs& a) { a.out.max_budget = 17; },
                [](TopKArgs& a) {
                  a.budgets = {a.batch->item.data, 1};
                },
                [](TopKArgs& a) {
                  a.head_of_kv_head = {a.batch->item.data, 5};
                }});
  ArgumentCheck<GuardArgs>(*b.backend, &Backend::guard, "guard",
                           {.batch = &c.batch,
                            .rule = c.rule,
                            .kv_heads = C::kHeads,
                            .selection = c.selection,
                            .budgets = c.ints(),
                            .rungs = c.ints(),
                            .resident_groups = c.writes(),
                            .groups = 2})
      .invalid({[](GuardArgs& a) { a.rule.budget = 0; }, [](GuardArgs& a) { a.rung = -2; },
                [](GuardArgs& a) { a.rung = 1; }, [](GuardArgs& a) { a.kv_heads = 0; },
                [](GuardArgs& a) { a.selection.outcomes.size = 1; },
                [](GuardArgs& a) { a.selection.coverage.size = 7; },
                [](GuardArgs& a) { a.budgets.size = 1; },
                [](GuardArgs& a) { a.rungs.data = nullptr; },
                [](GuardArgs& a) { a.resident_groups = nullptr; }});
  ArgumentCheck<StoreRingArgs>(
      *b.backend, &Backend::store_ring, "store_ring",
      {.rows = c.matrix(2, 8), .batch = &c.batch, .ring = c.heads(2, 4, 8)})
      .tensors({&StoreRingArgs::rows, &StoreRingArgs::ring})
      .invalid({[](StoreRingArgs& a) { a.rows.shape[0] = 1; },
                [](StoreRingArgs& a) { a.ring.shape[1] = 0; },
                [](StoreRingArgs& a) { a.ring.shape[2] = 4; }});
  ArgumentCheck<LoadRingArgs>(*b.backend, &Backend::load_ring, "load_ring",
                              {.ring = c.heads(2, 4, 8), .batch = &c.batch, .out = c.matrix(2, 8)})
      .tensors({&LoadRingArgs::ring, &LoadRingArgs::out})
      .invalid({[](LoadRingArgs& a) { a.out.shape[0] = 1; },
                [](LoadRingArgs& a) { a.out.shape[1] = 4; },
                [](LoadRingArgs& a) { a.ring.shape[1] = 0; }});
}

TEST_CASE("wrong arguments of the slot map are refused by name") {
  const NamedBackend b = GENERATE(from_range(backends()));
  CAPTURE(b.name);
  const C c(*b.backend);
  using Args = UpdateSlotsArgs;
  ArgumentCheck<Args>(
      *b.backend, &Backend::update_slots, "update_slots",
      {.batch = &c.batch, .selection = c.selection, .pool = c.pool, .lists = c.lists})
      .invalid({[](Args& a) { a.pool.slots = 0; }, [](Args& a) { a.pool.slots = 7; },
                [](Args& a) { a.pool.clock = nullptr; },
                [](Args& a) { a.pool.slot_of_token = nullptr; },
                [](Args& a) { a.pool.durable = nullptr; }, [](Args& a) { a.pool.max_length = 0; },
                [](Args& a) { a.lists.miss_ids = nullptr; },
                [](Args& a) { a.lists.hit_counts = nullptr; },
                [](Args& a) { a.lists.max_budget = 7; }, [](Args& a) { a.selection.ids.size = 31; },
                [](Args& a) { a.selection.counts.data = nullptr; },
                [](Args& a) { a.selection.max_budget = 0; }})
      .unsupported({[](Args& a) { a.selection.max_budget = 8193; }});
  ArgumentCheck<ForgetSlotsArgs>(*b.backend, &Backend::forget_slots, "forget_slots",
                                 {.pool = c.pool, .request = {0}, .first = 4})
      .invalid({[](ForgetSlotsArgs& a) { a.request = {}; },
                [](ForgetSlotsArgs& a) { a.first = -1; },
                [](ForgetSlotsArgs& a) { a.pool.token_of_slot = nullptr; },
                [](ForgetSlotsArgs& a) { a.pool.kv_heads = 0; }});
}

TEST_CASE("wrong arguments of what moves rows between the tiers are refused by name") {
  const NamedBackend b = GENERATE(from_range(backends()));
  CAPTURE(b.name);
  const C c(*b.backend);
  ArgumentCheck<GatherRowsArgs>(*b.backend, &Backend::gather_rows, "gather_rows",
                                {.batch = &c.batch, .lists = c.lists, .pool = c.pool})
      .invalid({[](GatherRowsArgs& a) { a.group = 2; }, [](GatherRowsArgs& a) { a.group = -1; },
                [](GatherRowsArgs& a) { a.max_blocks = 0; },
                [](GatherRowsArgs& a) { a.first_layer = -1; },
                [](GatherRowsArgs& a) { a.num_layers = a.pool.layers_of(0) + 1; },
                [](GatherRowsArgs& a) { a.first_layer = a.pool.layers_of(0) + 1; },
                [](GatherRowsArgs& a) { a.lists.miss_slots = nullptr; },
                [](GatherRowsArgs& a) { a.pool.host_pages = nullptr; },
                [](GatherRowsArgs& a) { a.pool.page_rows = 0; },
                [](GatherRowsArgs& a) { a.pool.group_layers = 0; }})
      .unsupported({[](GatherRowsArgs& a) { a.pool.dtype = DType::i8; }});
  ArgumentCheck<ScatterRowsArgs>(*b.backend, &Backend::scatter_rows, "scatter_rows",
                                 {.batch = &c.batch, .pool = c.pool})
      .invalid({[](ScatterRowsArgs& a) { a.write_batch = 0; },
                [](ScatterRowsArgs& a) { a.pool.durable = nullptr; },
                [](ScatterRowsArgs& a) { a.pool.run.bytes = 0; },
                [](ScatterRowsArgs& a) { a.pool.slots = 0; }})
      .unsupported({[](ScatterRowsArgs& a) { a.pool.dtype = DType::i32; }});
  using Kind = RowPlace::Kind;
  ArgumentCheck<MoveRowsArgs>(
      *b.backend, &Backend::move_rows, "move_rows",
      {.pool = c.pool, .request = {0}, .from = c.place(Kind::tokens), .to = c.place(Kind::host)})
      .invalid({[](MoveRowsArgs& a) { a.request = {}; }, [](MoveRowsArgs& a) { a.group = 2; },
                [](MoveRowsArgs& a) { a.layer = 1; }, [](MoveRowsArgs& a) { a.layer = -2; },
                [](MoveRowsArgs& a) { a.from.pages = nullptr; }, [](MoveRowsArgs& a) { a.to = {}; },
                [](MoveRowsArgs& a) { a.first = -1; },
                [](MoveRowsArgs& a) { a.from.kind = Kind::host; },
                [](MoveRowsArgs& a) { a.to.kind = static_cast<Kind>(9); }})
      .unsupported({[](MoveRowsArgs& a) { a.pool.dtype = DType::i8; }});
}
