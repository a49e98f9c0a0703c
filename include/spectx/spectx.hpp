// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "spectx/backend.hpp"
#include "spectx/host_memory.hpp"
#include "spectx/kv_pool.hpp"
#include "spectx/memory_planner.hpp"
#include "spectx/prefetch_pipeline.hpp"
#include "spectx/retrieval_head.hpp"
#include "spectx/version.hpp"
