// SPDX-License-Identifier: Apache-2.0
// out = softmax(q k^T scale) v for items with many rows, on tensor cores: q, k, v and the weights
// are rounded to the rows' type, sums are floats.
// 2 * rows * query_heads * ranks * (k_dim + v_dim) operations: bound by arithmetic. K and V are
// read once for kTileQueries queries.
//
// A block walks all ranks in ascending order: a result depends on the rows that it sees alone.
#include "attend_many_rows.cuh"
#include "device/mma.cuh"

namespace spectx::cu {
namespace {

using attend::ManyRows;
using attend::QueryTile;

constexpr int kBlockThreads = 128;
constexpr int kWarpQueries = 16;  // the height of a tile of the tensor cores
constexpr int kTileQueries = kWarpQueries * (kBlockThreads / device::kWarpSize);
constexpr int kTileRanks = 64;
constexpr int kVecElements = 8;  // 16 bytes

/// Rows in shared memory, padded so that 8 neighbours lie in different banks.
template <class T, int kDim>
struct Tile {
  static constexpr int kStride = kDim + kVecElements;
  static constexpr int kRowVecs = kDim / kVecElements;
  T* data;

  __device__ T* at(int row, int column) const { return data + row * kStride + column; }
  /// Starts to copy kTileRanks rows, from the addresses plus an offset.
  __device__ void start_load(const std::byte* const* rows, index_t offset) const {
    for (int i = static_cast<int>(threadIdx.x); i < kTileRanks * kRowVecs; i += kBlockThreads) {
      const int row = i / kRowVecs;
      const int vec = i % kRowVecs;
      device::start_copy(at(row, vec * kVecElements), rows[row] + offset + vec * device::kVecBytes);
    }
  }
};

/// Running softmax of the two rows of queries that a lane holds parts of.
struct Softmax {
  float largest[2] = {-INFINITY, -INFINITY};
  float weight[2] = {0, 0};
};

/// Turns scores into weights; returns in `factor` what the sums so far are to be scaled by.
__device__ void update_softmax(device::MmaSum (&scores)[kTileRanks / 8], const int (&visible)[2],
                               int first_rank, float scale_log2, Softmax& softmax,
                               float (&factor)[2]) {
  const int column = device::lane_index() % 4 * 2;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float largest = softmax.largest[half];
#pragma unroll
    for (int n = 0; n < kTileRanks / 8; ++n) {
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        float& score = scores[n].value[2 * half + j];
        const bool is_seen = first_rank + n * 8 + column + j < visible[half];
        score = is_seen ? score * scale_log2 : -INFINITY;
        largest = fmaxf(largest, score);
      }
    }
    largest = fmaxf(largest, __shfl_xor_sync(device::kAllLanes, largest, 1));
    largest = fmaxf(largest, __shfl_xor_sync(device::kAllLanes, largest, 2));
    const float base = largest == -INFINITY ? 0.0F : largest;
    factor[half] = device::exp2_fast(softmax.largest[half] - base);
    float sum = 0;
#pragma unroll
    for (int n = 0; n < kTileRanks / 8; ++n) {
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        float& score = scores[n].value[2 * half + j];
        score = device::exp2_fast(score - base);
        sum += score;
      }
    }
    softmax.weight[half] = fmaf(softmax.weight[half], factor[half], sum);
    softmax.largest[half] = largest;
  }
}

template <class T, int kDim>
__device__ void load_queries(const ManyRows& p, const QueryTile& place, const Tile<T, kDim>& to) {
  constexpr int kRowVecs = Tile<T, kDim>::kRowVecs;
  for (int i = static_cast<int>(threadIdx.x); i < kTileQueries * kRowVecs; i += kBlockThreads) {
    const int n = i / kRowVecs;
    const int d = i % kRowVecs * kVecElements;
    device::store_vec(to.at(n, d), attend::load_query<T>(p, place, n, d));
  }
}

template <class T, int kDim>
__device__ void multiply_keys(const Tile<T, kDim>& queries, const Tile<T, kDim>& keys,
                              device::MmaSum (&scores)[kTileRanks / 8]) {
  const int lane = device::lane_index();
#pragma unroll
  for (int k = 0; k < kDim; k += 16) {
    device::MmaLeft left;
    device::load_matrices(
        queries.at(device::warp_index() * kWarpQueries + lane % 16, k + lane / 16 * 8), left.part);
#pragma unroll
    for (int n = 0; n < kTileRanks; n += 16) {
      std::uint32_t part[4];
      device::load_matrices(keys.at(n + lane / 16 * 8 + lane % 8, k + lane / 8 % 2 * 8), part);
      device::multiply_add(scores[n / 8], left, {part[0], part[1]}, T{});
      device::multiply_add(scores[n / 8 + 1], left, {part[2], part[3]}, T{});
    }
  }
}

template <class T, int kDim>
__device__ void add_values(const device::MmaSum (&weights)[kTileRanks / 8],
                           const Tile<T, kDim>& values, device::MmaSum (&sums)[kDim / 8]) {
  const int lane = device::lane_index();
#pragma unroll
  for (int k = 0; k < kTileRanks; k += 16) {
    const float(&low)[4] = weights[k / 8].value;
    const float(&high)[4] = weights[k / 8 + 1].value;
    const device::MmaLeft left{
        {device::pack(low[0], low[1], T{}), device::pack(low[2], low[3], T{}),
         device::pack(high[0], high[1], T{}), device::pack(high[2], high[3], T{})}};
#pragma unroll
    for (int n = 0; n < kDim; n += 16) {
      std::uint32_t part[4];
      device::load_matrices_transposed(values.at(k + lane % 16, n + lane / 16 * 8), part);
      device::multiply_add(sums[n / 8], left, {part[0], part[1]}, T{});
      device::multiply_add(sums[n / 8 + 1], left, {part[2], part[3]}, T{});
    }
  }
}

// One block kTileQueries queries of one KV head; a warp takes kWarpQueries of them.
template <class T, int kDim>
__global__ void __launch_bounds__(kBlockThreads)
    attend_many_rows_kernel(const __grid_constant__ ManyRows p) {
  extern __shared__ __align__(16) std::byte memory[];
  __shared__ const std::byte* rows[2][kTileRanks];
  const QueryTile place(p, kTileQueries);
  if (place.count <= 0) return;
  using Shared = Tile<T, kDim>;
  const Shared queries{reinterpret_cast<T*>(memory)};
  const Shared keys{queries.data + kTileQueries * Shared::kStride};
  const Shared values{keys.data + kTileRanks * Shared::kStride};
  const KVRows kv(p.kv, place.item, place.request, place.head);
  const int last = place.count - 1;
  const int ranks = place.seen_by(p, kv, last);
  const auto find_rows = [&](int tile) {
    const int i = static_cast<int>(threadIdx.x);
    // Past the end a seen row stands in: its weight is 0, and it is finite.
    if (i < kTileRanks) {
      rows[tile % 2][i] = kv.address(min(tile * kTileRanks + i, ranks - 1));
    }
  };
  const auto own_query = [](int half) {
    return device::warp_index() * kWarpQueries + device::lane_index() / 4 + half * kWarpQueries / 2;
  };
  int visible[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    visible[half] = place.seen_by(p, kv, min(own_query(half), last));
  }
  load_queries(p, place, queries);
  if (ranks > 0) find_rows(0);
  __syncthreads();
  if (ranks > 0) keys.start_load(rows[0], 0);
  Softmax softmax;
  device::MmaSum sums[kDim / 8];
  for (int tile = 0; tile * kTileRanks < ranks; ++tile) {
    device::wait_copies();
    __syncthreads();  // the keys are there, the values before them have been used
    values.start_load(rows[tile % 2], p.kv.v_offset);
    const bool has_next = (tile + 1) * kTileRanks < ranks;
    if (has_next) find_rows(tile + 1);
    device::MmaSum scores[kTileRanks / 8];
    multiply_keys(queries, keys, scores);
    float factor[2];
    update_softmax(scores, visible, tile * kTileRanks, p.scale_log2, softmax, factor);
#pragma unroll
    for (int n = 0; n < kDim / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) sums[n].value[i] *= factor[i / 2];
    }
    device::wait_copies();
    __syncthreads();  // the values are there, the keys have been used
    if (has_next) keys.start_load(rows[(tile + 1) % 2], 0);
    add_values(scores, values, sums);
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float weight = softmax.weight[half];
    weight += __shfl_xor_sync(device::kAllLanes, weight, 1);
    weight += __shfl_xor_sync(device::kAllLanes, weight, 2);
    if (own_query(half) > last) continue;
    const float scale = weight > 0 ? 1 / weight : (weight == 0 ? 0.0F : weight);
#pragma unroll
    for (int d = 0; d < kDim / 8; ++d) {
      attend::store_pair<T>(p, place, own_query(half), d * 8 + device::lane_index() % 4 * 2,
                            sums[d].value[2 * half] * scale, sums[d].value[2 * half + 1] * scale);
    }
  }
}

template <class T>
void launch(const AttendArgs& a, const ManyRows& p, const dim3& grid, const Launch& on) {
  dispatch_value<64, 80, 96, 128>(a.kv.k_dim, [&]<index_t kDim>() {
    constexpr int kSize = static_cast<int>(kDim);
    constexpr int kBytes =
        (kTileQueries + 2 * kTileRanks) * Tile<T, kSize>::kStride * static_cast<int>(sizeof(T));
    static_assert(kBytes + 2 * kTileRanks * sizeof(void*) <= kMostSharedBytes);
    const auto kernel = attend_many_rows_kernel<T, kSize>;
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes));
    kernel<<<grid, kBlockThreads, kBytes, on.stream>>>(p);
  });
  check(cudaGetLastError());
}

}  // namespace

bool has_many_rows_kernel(const AttendArgs& a) noexcept {
  const bool is_half = a.kv.dtype == DType::f16 || a.kv.dtype == DType::bf16;
  const bool is_one_type = a.q.dtype == a.kv.dtype && a.out.dtype == a.kv.dtype;
  const index_t dim = a.kv.k_dim;
  const bool is_known = dim == 64 || dim == 80 || dim == 96 || dim == 128;
  return is_half && is_one_type && is_known && a.kv.v_dim == dim && has_wide_rows(a.kv);
}

void launch_attend_many_rows(const AttendArgs& a, index_t few_rows, const Launch& on) {
  const attend::ManyRows p(a, few_rows);
  if (attend::has_warpgroups_kernel(a, on)) return attend::launch_attend_warpgroups(a, p, on);
  const dim3 grid = attend::grid_of_tiles(a, kTileQueries);
  if (a.kv.dtype == DType::f16) {
    launch<__half>(a, p, grid, on);
  } else {
    launch<__nv_bfloat16>(a, p, grid, on);
  }
}

}  // namespace spectx::cu
