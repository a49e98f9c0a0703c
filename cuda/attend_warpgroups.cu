// SPDX-License-Identifier: Apache-2.0
// out = softmax(q k^T scale) v for items with many rows, as attend_many_rows.cu, by the products of
// warpgroups that sm_90a has: q, k, v and the weights are rounded to the rows' type, sums are
// floats.
// 2 * rows * query_heads * ranks * (k_dim + v_dim) operations: bound by arithmetic. K and V are
// read once for kTileQueries queries. On an H100 559 TFLOP/s for 2,048 rows that end 32,768 tokens.
//
// A block walks all ranks in ascending order: a result depends on the rows that it sees alone.
#include "attend_panels.cuh"

namespace spectx::cu::attend {
namespace {

using namespace warpgroups;

// A block starts with 168 for each thread: 128 * 104 + 256 * 200 are as many.
constexpr int kCopyRegisters = 104;
constexpr int kMultiplyRegisters = 200;
constexpr int kQueryBarrier = 1;  // of the block, one a warpgroup: its queries are there
constexpr int kTurnBarrier = kQueryBarrier + kMultipliers;  // likewise: it may begin products
constexpr int kTurnThreads = kMultipliers * kGroupThreads;
static_assert(kMultipliers == 2);

/// Running softmax of the two queries that a lane holds parts of.
struct Softmax {
  float largest[2] = {-INFINITY, -INFINITY};
  float weight[2] = {0, 0};
};

/// Ranks that the lane's queries see, and those that every query of the warpgroup does.
struct Seen {
  int by[2], by_all;

  __device__ Seen(const ManyRows& p, const QueryTile& place, const KVRows& kv, int first_query,
                  int query) {
    const int last = place.count - 1;
    by_all = place.seen_by(p, kv, min(first_query, last));
    by[0] = place.seen_by(p, kv, min(query, last));
    by[1] = place.seen_by(p, kv, min(query + 8, last));
  }
  /// Hides from each query the ranks of a tile that it does not see.
  __device__ void hide(float (&scores)[kTileRanks / 2], int tile) const {
    if ((tile + 1) * kTileRanks <= by_all) return;
    const int column = tile * kTileRanks + device::lane_index() % 4 * 2;
#pragma unroll
    for (int i = 0; i < kTileRanks / 2; ++i) {
      if (column + i / 4 * 8 + i % 2 >= by[i / 2 % 2]) scores[i] = -INFINITY;
    }
  }
};

/// Turns scores into weights; returns in `factor` what the sums so far are to be scaled by.
__device__ inline void update_softmax(float (&scores)[kTileRanks / 2], float scale_log2,
                                      Softmax& softmax, float (&factor)[2]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float largest = softmax.largest[half];
#pragma unroll
    for (int i = 2 * half; i < kTileRanks / 2; i += 4) {
      largest = fmaxf(largest, fmaxf(scores[i], scores[i + 1]));
    }
    largest = fmaxf(largest, __shfl_xor_sync(device::kAllLanes, largest, 1));
    largest = fmaxf(largest, __shfl_xor_sync(device::kAllLanes, largest, 2));
    const float base = largest == -INFINITY ? 0.0F : __fmul_rn(largest, scale_log2);
    // Of equal ones exactly 1.
    factor[half] = device::exp2_fast(__fmul_rn(softmax.largest[half], scale_log2) - base);
    float sum = 0;
#pragma unroll
    for (int i = 2 * half; i < kTileRanks / 2; i += 4) {
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        scores[i + j] = device::exp2_fast(fmaf(scores[i + j], scale_log2, -base));
        sum += scores[i + j];
      }
    }
    softmax.weight[half] = fmaf(softmax.weight[half], factor[half], sum);
    softmax.largest[half] = largest;
  }
}

constexpr int kSteps = kTileRanks / kSumSteps;

template <class T>
__device__ void round_weights(const float (&weights)[kTileRanks / 2],
                              device::MmaLeft (&left)[kSteps]) {
#pragma unroll
  for (int k = 0; k < kSteps; ++k) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      left[k].part[i] = device::pack(weights[8 * k + 2 * i], weights[8 * k + 2 * i + 1], T{});
    }
  }
}

/// Begins scores = queries keys^T.
template <class T, int kDim>
__device__ void begin_scores(const Memory<kDim>& memory, int tile, int first_query,
                             float (&scores)[kTileRanks / 2]) {
  device::begin_products();
#pragma unroll
  for (int k = 0; k < kDim / kSumSteps; ++k) {
    device::multiply_rows(scores, memory.queries().columns(first_query, k),
                          memory.keys(tile).columns(0, k), k > 0, T{});
  }
  device::end_product_group();
}
/// Begins sums += weights values.
template <class T, int kDim>
__device__ void begin_sums(const Memory<kDim>& memory, int tile,
                           const device::MmaLeft (&weights)[kSteps], float (&sums)[kDim / 2]) {
  device::begin_products();
#pragma unroll
  for (int k = 0; k < kSteps; ++k) {
    device::add_rows(sums, weights[k], memory.values(tile).rows(k * kSumSteps), T{});
  }
  device::end_product_group();
}

/// The warpgroup's queries.
template <class T, int kDim>
__device__ void load_queries(const ManyRows& p, const QueryTile& place, const Memory<kDim>& memory,
                             int first_query) {
  constexpr int kRowVecs = Memory<kDim>::Q::kRowVecs;
  for (int i = static_cast<int>(threadIdx.x) % kGroupThreads; i < kGroupQueries * kRowVecs;
       i += kGroupThreads) {
    const int query = first_query + i / kRowVecs;
    const int vec = i % kRowVecs;
    *reinterpret_cast<device::Vec<T, kVecElements>*>(memory.queries().at(query, vec)) =
        load_query<T>(p, place, query, vec * kVecElements);
  }
  device::publish_to_async_proxy();
}
/// The outputs of queries `query` and `query` + 8.
template <class T, int kDim>
__device__ void store(const ManyRows& p, const QueryTile& place, int query, const Softmax& softmax,
                      const float (&sums)[kDim / 2]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float weight = softmax.weight[half];
    weight += __shfl_xor_sync(device::kAllLanes, weight, 1);
    weight += __shfl_xor_sync(device::kAllLanes, weight, 2);
    if (query + 8 * half >= place.count) continue;
    const float scale = weight > 0 ? 1 / weight : (weight == 0 ? 0.0F : weight);
#pragma unroll
    for (int d = 0; d < kDim / 8; ++d) {
      store_pair<T>(p, place, query + 8 * half, d * 8 + device::lane_index() % 4 * 2,
                    sums[4 * d + 2 * half] * scale, sums[4 * d + 2 * half + 1] * scale);
    }
  }
}

/// The barrier, once a sum of weights is known. The compiler would put the softmax behind the wait
/// for the products that it is to run beside; it does not if an arrival ahead of the wait needs it.
__device__ inline std::uint64_t* once_known(std::uint64_t* barrier, float weight) {
  return barrier + (weight < 0 ? 1 : 0);  // it never is
}

/// What a warpgroup that multiplies does: the sums of a tile are added to beside the softmax of the
/// next one, and two warpgroups begin products in turn, so that one's softmax runs beside the
/// other's products.
template <class T, int kDim>
__device__ void multiply(const ManyRows& p, const QueryTile& place, const KVRows& kv,
                         const Memory<kDim>& memory, int tiles, Barriers& barriers) {
  const int group = device::warp_index() / kGroupWarps;
  const int first_query = group * kGroupQueries;
  load_queries<T>(p, place, memory, first_query);
  device::meet(kQueryBarrier + group, kGroupThreads);
  const int query =
      first_query + device::warp_index() % kGroupWarps * 16 + device::lane_index() / 4;
  const Seen seen(p, place, kv, first_query, query);
  const int own_turn = kTurnBarrier + group;
  const int other_turn = kTurnBarrier + 1 - group;
  Softmax softmax;
  float factor[2];
  float sums[kDim / 2];
#pragma unroll
  for (int i = 0; i < kDim / 2; ++i) sums[i] = 0;
  device::MmaLeft weights[kSteps];
  float scores[kTileRanks / 2];
  if (group == 1) device::sign(other_turn, kTurnThreads);
  if (tiles > 0) {
    device::wait_for_phase(&barriers.has_keys[0], 0);
    begin_scores<T>(memory, 0, first_query, scores);
    device::wait_product_groups<0>();
    device::settle(scores);
    arrive_as_warp(&barriers.used_keys[0]);
    seen.hide(scores, 0);
    update_softmax(scores, p.scale_log2, softmax, factor);
    round_weights<T>(scores, weights);
  }
  for (int tile = 1; tile < tiles; ++tile) {
    const int before = tile - 1;
    device::wait_for_phase(&barriers.has_keys[tile % kStages], parity_of(tile));
    device::meet(own_turn, kTurnThreads);
    begin_scores<T>(memory, tile, first_query, scores);
    device::wait_for_phase(&barriers.has_values[before % kStages], parity_of(before));
    begin_sums<T>(memory, before, weights, sums);
    device::sign(other_turn, kTurnThreads);
    device::wait_product_groups<1>();
    device::settle(scores);
    seen.hide(scores, tile);
    update_softmax(scores, p.scale_log2, softmax, factor);
    arrive_as_warp(
        once_known(&barriers.used_keys[tile % kStages], softmax.weight[0] + softmax.weight[1]));
    device::wait_product_groups<0>();
    device::settle(sums);
    arrive_as_warp(&barriers.used_values[before % kStages]);
#pragma unroll
    for (int i = 0; i < kDim / 2; ++i) sums[i] *= factor[i / 2 % 2];
    round_weights<T>(scores, weights);
  }
  if (tiles > 0) {
    const int last = tiles - 1;
    device::wait_for_phase(&barriers.has_values[last % kStages], parity_of(last));
    begin_sums<T>(memory, last, weights, sums);
    device::wait_product_groups<0>();
    device::settle(sums);
  }
  store<T, kDim>(p, place, query, softmax, sums);
}

// One block kTileQueries queries of one KV head; a warpgroup that multiplies takes kGroupQueries of
// them, the last warpgroup copies.
template <class T, int kDim>
__global__ void __launch_bounds__(kBlockThreads, 1)
    attend_warpgroups_kernel(const __grid_constant__ ManyRows p) {
  extern __shared__ __align__(1024) std::byte shared[];
  __shared__ Barriers barriers;
  const QueryTile place(p, kTileQueries);
  if (place.count <= 0) return;
  const KVRows kv(p.kv, place.item, place.request, place.head);
  const int ranks = place.seen_by(p, kv, place.count - 1);
  const int tiles = (ranks + kTileRanks - 1) / kTileRanks;
  const Memory<kDim> memory{shared};
  if (threadIdx.x == 0) barriers.make();
  __syncthreads();
  if (device::warp_index() / kGroupWarps == kMultipliers) {
    device::keep_registers<kCopyRegisters>();
    copy_rows(memory, kv, ranks, tiles, p.kv.v_offset, barriers);
  } else {
    device::take_registers<kMultiplyRegisters>();
    multiply<T>(p, place, kv, memory, tiles, barriers);
  }
}

template <class T>
void launch(const ManyRows& p, const dim3& grid, const Launch& on) {
  dispatch_value<64, 128>(p.kv.k_dim, [&]<index_t kDim>() {
    constexpr int kBytes = Memory<static_cast<int>(kDim)>::kBytes;
    const auto kernel = attend_warpgroups_kernel<T, static_cast<int>(kDim)>;
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes));
    kernel<<<grid, kBlockThreads, kBytes, on.stream>>>(p);
  });
  check(cudaGetLastError());
}

}  // namespace

bool has_warpgroups_kernel(const AttendArgs& a, const Launch& on) noexcept {
  return on.has_warpgroups && a.scale >= 0 && (a.kv.k_dim == 64 || a.kv.k_dim == 128);
}

void launch_attend_warpgroups(const AttendArgs& a, const ManyRows& p, const Launch& on) {
  const dim3 grid = grid_of_tiles(a, kTileQueries);
  if (a.kv.dtype == DType::f16) {
    launch<__half>(p, grid, on);
  } else {
    launch<__nv_bfloat16>(p, grid, on);
  }
}

}  // namespace spectx::cu::attend
