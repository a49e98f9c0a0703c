// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "spectx/detail/placer.hpp"
#include "spectx/detail/plan_pool.hpp"
#include "spectx/paper_memory_model.hpp"
#include "spectx/placement.hpp"
#include "spectx/planner_config.hpp"

namespace spectx {

/// Bytes of both tiers, item by item. The device's total is what is allocated for the life of a
/// pool; what requests hold of its arena is beside it.
struct MemoryUse {
  index_t model = 0;           // as configured
  index_t head_weights = 0;    // as configured
  index_t scratch = 0;         // of the operations, as configured
  index_t lent = 0;            // of a host engine's own cache, as configured
  index_t arena = 0;           // of the pool's pages
  index_t staging = 0;         // of prompts whose layers are on the host
  index_t pool_tables = 0;     // page tables, slot map, batch arrays: KVPool
  index_t step_lists = 0;      // PrefetchPipeline
  index_t head_workspace = 0;  // RetrievalHead
  // Inside the arena:
  index_t resident_rows = 0;
  index_t slots = 0;
  index_t head_keys = 0;
  index_t lent_rows = 0;  // inside the lent pages, in place of resident_rows

  index_t host_rows = 0;  // host tier, in use
  index_t host_cap = 0;   // what it may grow to

  /// What the components allocate.
  index_t device_own() const noexcept {
    return arena + staging + pool_tables + step_lists + head_workspace;
  }
  index_t device_total() const noexcept {
    return model + head_weights + scratch + lent + device_own();
  }
  index_t arena_used() const noexcept { return resident_rows + slots + head_keys; }
};

/// Decides how large a pool is, which groups of layers of each request live on the device, and
/// whether one more request may join. Pure arithmetic over PoolLayout and HeadLayout: it touches no
/// memory but its own and allocates only at construction. Not thread-safe.
class MemoryPlanner {
 public:
  /// Throws InvalidArgument that names the field, OutOfMemory (tier, asked, free) when not even one
  /// request of max_length fits, Unsupported for MLA.
  MemoryPlanner(const ModelShape& shape, const PlannerConfig& config)
      : shape_(shape),
        config_(checked(shape, config)),
        plan_(detail::plan_pool(shape, config)),
        layout_(shape, plan_),
        demand_(plan_, layout_),
        placer_(demand_, plan_) {
    thresholds_.resize(static_cast<std::size_t>(
        is_paper() ? paper_model().layers + 1 : (plan_.has_host_tier() ? layout_.groups : 0) + 1));
    if (!is_paper()) return;
    expects(shape.k_dim == shape.v_dim, "MemoryPlanner: the paper's models need k_dim == v_dim");
    paper_model().check(config.max_requests, config.max_length);
    most_resident_.resize(static_cast<std::size_t>(config.max_requests));
  }

  /// What a pool is built with.
  const PoolPlan& pool_plan() const noexcept { return plan_; }

  /// What lives where from the next step on; between steps. Asks for no more moves than the memory
  /// holds now with both copies of a moving group; call again after each step for the others.
  /// `now` must outlive the result. Throws InvalidArgument for needs that the pool cannot have.
  Placement place(std::span<const RequestNeed> now) {
    check_needs(now, "MemoryPlanner::place: a need is out of the pool's range");
    return {now, placer_.place(now, is_paper() ? allow_by_paper(now) : nullptr)};
  }

  /// Whether a request that will hold `final_length` tokens may join: `now` if all can run to their
  /// final lengths together and there is room to start, `later` if it could alone. When only the
  /// room to start lacks, the next place() makes it.
  Admission admit(std::span<const RequestNeed> now, index_t final_length) {
    expects(final_length > 0, "MemoryPlanner::admit: final_length must be positive");
    check_needs(now, "MemoryPlanner::admit: a need is out of the pool's range");
    RequestNeed more;
    more.final_length = final_length;
    if (final_length > plan_.max_length ||
        !detail::fit_to_the_end(demand_, {}, &more).is_possible) {
      return Admission::never;
    }
    if (static_cast<index_t>(now.size()) == plan_.max_requests) return Admission::later;
    const detail::Fit fit = detail::fit_to_the_end(demand_, now, &more);
    const bool can_join = fit.is_possible && placer_.can_start(now, final_length, fit);
    return can_join ? Admission::now : Admission::later;
  }
  /// Whether all can run to their final lengths together. Ask before a parked request is resumed,
  /// with its is_parked false.
  bool fits(std::span<const RequestNeed> now) const {
    check_needs(now, "MemoryPlanner::fits: a need is out of the pool's range");
    return detail::fit_to_the_end(demand_, now).is_possible;
  }

  /// Largest length that `requests` requests of one length can have with i groups of each on the
  /// host, S_0 .. S_groups, at most max_length; 0 where there is none. Only S_0 without a host
  /// tier. In the paper's models: its S_0 .. S_L by layers, not limited to max_length. Valid until
  /// the planner's next call.
  std::span<const index_t> thresholds(index_t requests) {
    expects(requests > 0 && requests <= plan_.max_requests,
            "MemoryPlanner::thresholds: requests must be in 1 .. max_requests");
    if (is_paper()) {
      paper_model().thresholds(requests, config_.model == PlannerModel::paper_corrected,
                               thresholds_);
    } else {
      for (std::size_t i = 0; i < thresholds_.size(); ++i) {
        thresholds_[i] = longest(requests, static_cast<index_t>(i));
      }
    }
    return thresholds_;
  }

  /// The fewest groups, of all requests together, that are on the host when `requests` requests
  /// reach `length` as their final length; -1 if they cannot run at once.
  index_t groups_on_host(index_t requests, index_t length) const {
    expects(requests > 0 && requests <= plan_.max_requests,
            "MemoryPlanner::groups_on_host: requests must be in 1 .. max_requests");
    expects(length > 0 && length <= plan_.max_length,
            "MemoryPlanner::groups_on_host: length must be in 1 .. max_length");
    return detail::fewest_on_host(demand_, requests, length);
  }

  /// The bytes that requests as they are take.
  MemoryUse predict(std::span<const RequestNeed> now) const;

  const ModelShape& shape() const noexcept { return shape_; }
  const PlannerConfig& config() const noexcept { return config_; }
  const PoolLayout& layout() const noexcept { return layout_; }
  /// The same memory in the paper's terms.
  PaperMemoryModel paper_model() const {
    return {.memory_bytes = config_.device_bytes,
            .model_bytes = config_.model_bytes,
            .draft_bytes = config_.head_weight_bytes,
            .layers = shape_.cached_layers(),
            .kv_heads = shape_.kv_heads,
            .head_dim = shape_.k_dim,
            .group_size = shape_.group_size(),
            .budget = config_.selection.largest_budget(),
            .element_bytes = dtype_bytes(shape_.dtype)};
  }

 private:
  static const PlannerConfig& checked(const ModelShape& shape, const PlannerConfig& config) {
    detail::check_plan(shape, config);
    return config;
  }
  bool is_paper() const noexcept { return config_.model != PlannerModel::exact; }
  void check_needs(std::span<const RequestNeed> now, const char* what) const {
    bool is_possible = static_cast<index_t>(now.size()) <= plan_.max_requests;
    for (const RequestNeed& n : now) {
      is_possible = is_possible && n.length >= 0 && n.length <= n.final_length &&
                    n.final_length <= plan_.max_length && n.resident_groups >= 0 &&
                    n.resident_groups <= layout_.groups && n.moving_to >= -1 &&
                    n.moving_to <= layout_.groups;
    }
    expects(is_possible, what);
  }

  /// Groups that the run-time algorithm keeps on the device, for each request at its own length.
  const std::int32_t* allow_by_paper(std::span<const RequestNeed> now) {
    index_t active = 0;
    for (const RequestNeed& need : now) active += need.is_parked ? 0 : 1;
    if (active == 0) active = 1;
    const std::span<const index_t> at = thresholds(active);
    for (std::size_t i = 0; i < now.size(); ++i) {
      const index_t layers = PaperMemoryModel::layers_on_host(at, now[i].length);
      most_resident_[i] = static_cast<std::int32_t>(
          demand_.whole(layout_.groups - ceil_div(layers, plan_.group_layers)));
    }
    return most_resident_.data();
  }

  index_t longest(index_t requests, index_t host_groups) const {
    index_t fits = 0;
    for (index_t too_long = plan_.max_length + 1; fits + 1 < too_long;) {
      const index_t length = fits + (too_long - fits) / 2;
      const index_t pages = demand_.token_pages(length);
      const index_t device = (layout_.groups - host_groups) * pages +
                             host_groups * demand_.slot_pages() + demand_.key_pages(length);
      const bool is_room = requests * device <= demand_.limit() &&
                           requests * host_groups * pages <= plan_.host_pages;
      (is_room ? fits : too_long) = length;
    }
    return fits;
  }

  ModelShape shape_;
  PlannerConfig config_;
  PoolPlan plan_;
  PoolLayout layout_;
  detail::PageDemand demand_;
  detail::Placer placer_;
  std::vector<index_t> thresholds_;
  std::vector<std::int32_t> most_resident_;  // the paper's models only
};

inline MemoryUse MemoryPlanner::predict(std::span<const RequestNeed> now) const {
  check_needs(now, "MemoryPlanner::predict: a need is out of the pool's range");
  MemoryUse use{
      .model = config_.model_bytes,
      .head_weights = config_.head_weight_bytes,
      .scratch = config_.scratch_bytes,
      .lent = config_.lent_bytes,
      .arena = layout_.arena_bytes,
      .staging = layout_.staging_bytes,
      .pool_tables = layout_.table_bytes(),
      .step_lists = layout_.step_list_bytes(),
      .head_workspace = HeadLayout(shape_, plan_, config_.head, config_.compute_dtype).bytes(),
      .host_cap = plan_.host_pages * layout_.host_page_bytes};
  for (const RequestNeed& need : now) {
    const index_t key_rows = layout_.key_page_rows;
    const index_t keys = key_rows == 0 ? 0 : ceil_div(need.length, key_rows);
    use.head_keys += keys * layout_.page_bytes;
    (plan_.lends() ? use.lent_rows : use.resident_rows) +=
        demand_.held_rows(need) * layout_.page_bytes;
    use.slots += demand_.held_slots(need) * layout_.slot_pages * layout_.page_bytes;
    use.host_rows += demand_.held_on_host(need) * layout_.host_page_bytes;
  }
  return use;
}

}  // namespace spectx
