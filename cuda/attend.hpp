// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels.hpp"

namespace spectx::cu {

/// Whether items with many rows have a kernel on tensor cores: activations and rows of one half
/// type, k_dim == v_dim in {64, 80, 96, 128}. A matter of types and sizes alone, so that an item's
/// path depends on nothing but its number of rows.
bool has_many_rows_kernel(const AttendArgs& args) noexcept;

/// Items of more than `few_rows` rows; leaves the others.
void launch_attend_many_rows(const AttendArgs& args, index_t few_rows, const Launch& on);

/// Whether items with few rows have a kernel on tensor cores: activations and rows of one half
/// type, k_dim == v_dim in {64, 80, 96, 128, 256}. A matter of types and sizes alone.
bool has_few_rows_kernel(const AttendArgs& args) noexcept;

/// Items of at most `most_rows` rows; leaves the others.
void launch_attend_few_rows(const AttendArgs& args, index_t most_rows, const Launch& on);

}  // namespace spectx::cu
