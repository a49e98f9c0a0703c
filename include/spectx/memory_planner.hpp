// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <vector>

#include "spectx/head_layout.hpp"
#include "spectx/pool_layout.hpp"

namespace spectx {

/// `exact`: the bytes that this library allocates. `paper`: SpeContext equations 6-8 and its
/// threshold algorithm as printed; `paper_corrected`: with the factor that its numerator lacks.
enum class PlannerModel : std::uint8_t { exact, paper, paper_corrected };

struct PlannerConfig {
  PlannerModel model = PlannerModel::exact;
  index_t device_bytes = 0;     // cap of the device's memory
  index_t host_bytes = 0;       // cap of the host tier
  index_t model_bytes = 0;      // weights and activations of the model itself, on the device
  bool has_one_memory = false;  // host and device memory are the same: no host tier
  SelectionConfig selection;
  HeadShape head;
  DType compute_dtype = DType::f32;  // of the head's activations
  index_t max_requests = 32;
  index_t max_length = 8192;    // tokens of one request
  index_t max_step_rows = 544;  // rows of one batch: prompt chunk + decode rows
  index_t page_rows = 64;
  double hot_buffer = 2;  // device slots of an offloaded group, as a multiple of the budget
  index_t write_batch = 32;
};

/// One open request, as the planner sees it.
struct RequestNeed {
  RequestId request;
  index_t length = 0;        // tokens cached
  index_t final_length = 0;  // reservation
  std::int32_t resident_groups = 0;
  bool is_parked = false;
};

/// What lives where from the next step on: groups [0, resident_groups) of a request stay on the
/// device. One entry for each RequestNeed, in its order; valid until the planner's next call.
struct Placement {
  std::span<const RequestNeed> needs;
  std::span<const std::int32_t> resident_groups;
};

enum class Admission : std::uint8_t { now, later, never };

}  // namespace spectx
