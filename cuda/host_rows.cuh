// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <type_traits>

#include "copy_rows.cuh"
#include "device/host_number.cuh"

// How a warp moves the rows of some layers of one token between the device and its run in the host
// tier: as they are, or as numbers and scales.
namespace spectx::cu {

inline constexpr int kLinkLineBytes = 128;  // that a read of the host's memory carries at most

/// Some layers of a run.
struct RunLayers {
  std::byte* run;
  int first, count;
};

/// The rows' own type.
template <class Unit>
struct ExactRows {
  static constexpr bool kIsExact = true;

  static __device__ LayerRows rows_of(const KVPoolView& pool, const RunLayers& at) {
    return {at.run + at.first * pool.row_bytes, pool.row_bytes, 0};
  }
  static __device__ void load(const KVPoolView& pool, const RunLayers& from, const LayerRows& to) {
    copy_layers<Unit>(pool, to, rows_of(pool, from), from.count);
  }
  static __device__ void store(const KVPoolView& pool, const LayerRows& from, const RunLayers& to) {
    copy_layers<Unit>(pool, rows_of(pool, to), from, to.count);
  }
  /// Between two places on the device.
  static __device__ void copy(const KVPoolView& pool, const LayerRows& from, const LayerRows& to,
                              int layers) {
    copy_layers<Unit>(pool, to, from, layers);
  }
};

/// Rows of T as numbers of H, of which a lane takes kCount at once: k_dim and v_dim are multiples.
template <class T, class H, int kCount>
struct LossyRows {
  static constexpr bool kIsExact = false;
  using Elements = device::Vec<T, kCount>;
  using Numbers = device::Vec<H, kCount>;

  /// All of a lane's numbers of a run of 2 KiB, and its scales, are in flight before it stores.
  static __device__ void load(const KVPoolView& pool, const RunLayers& from, const LayerRows& to) {
    constexpr int kMostLayers = device::kWarpSize / 2;  // a lane a scale
    for (int done = 0; done < from.count; done += kMostLayers) {
      load_some(pool, {from.run, from.first + done, min(from.count - done, kMostLayers)},
                {to.first + done * to.layer_bytes, to.layer_bytes, to.v_gap});
    }
  }

  /// Parts (K or V of a layer) side by side, each taken by a power of two of lanes.
  static __device__ void store(const KVPoolView& pool, const LayerRows& from, const RunLayers& to) {
    const int k_units = static_cast<int>(pool.k_dim) / kCount;
    const int v_units = static_cast<int>(pool.v_dim) / kCount;
    int lanes = 1;
    while (lanes < max(k_units, v_units) && lanes < device::kWarpSize) lanes *= 2;
    const int lane = device::lane_index() % lanes;
    for (int begin = 0; begin < 2 * to.count; begin += device::kWarpSize / lanes) {
      const int part = begin + device::lane_index() / lanes;
      const bool is_v = part % 2 == 1;
      const int units = part < 2 * to.count ? (is_v ? v_units : k_units) : 0;
      const std::byte* const row =
          from.first + part / 2 * from.layer_bytes + (is_v ? from.v_gap : 0);
      store_part(reinterpret_cast<const Elements*>(row) + (is_v ? k_units : 0), units, lane, lanes,
                 reinterpret_cast<Numbers*>(numbers_of(pool, to, part / 2)) + (is_v ? k_units : 0),
                 scales_of(to) + part);
    }
  }

 private:
  static __device__ std::byte* numbers_of(const KVPoolView& pool, const RunLayers& at, int layer) {
    return at.run + pool.run.first_row + (at.first + layer) * pool.run.row_bytes;
  }
  static __device__ float* scales_of(const RunLayers& at) {
    return reinterpret_cast<float*>(at.run) + 2 * at.first;
  }

  /// A unit of numbers, in the registers of its load: bytes would wait for it to take them apart.
  using Held = std::conditional_t<sizeof(Numbers) == sizeof(uint4), uint4, std::uint8_t>;
  static_assert(sizeof(Held) == sizeof(Numbers));

  // The link carries lines: a warp's loads begin with one, and the scales of a run, which are in
  // the line of its first numbers, come with them.
  static constexpr bool kIsWide = sizeof(Held) == sizeof(uint4);
  static constexpr int kLineUnits = kLinkLineBytes / static_cast<int>(sizeof(Held));

  /// Units of scales that are loaded as numbers are.
  static __device__ int units_before(const KVPoolView& pool, const RunLayers& from) {
    const int units = static_cast<int>(pool.run.first_row) / kCount;
    return kIsWide && from.first == 0 && units + kLineUnits <= device::kWarpSize ? units : 0;
  }
  static __device__ int units_into_line(const Held* first) {
    if (!kIsWide) return 0;
    return static_cast<int>(reinterpret_cast<std::uintptr_t>(first) % kLinkLineBytes /
                            sizeof(Held));
  }
  /// The scales from lane `first` on, four each: lane i gets number i.
  static __device__ float spread_scales(const uint4& held, int first) {
    const int lane = device::lane_index();
    const int source = first + lane / 4;
    const float x = device::from_lane(__uint_as_float(held.x), source);
    const float y = device::from_lane(__uint_as_float(held.y), source);
    const float z = device::from_lane(__uint_as_float(held.z), source);
    const float w = device::from_lane(__uint_as_float(held.w), source);
    return lane % 4 < 2 ? (lane % 4 == 0 ? x : y) : (lane % 4 == 2 ? z : w);
  }

  static __device__ void load_some(const KVPoolView& pool, const RunLayers& from,
                                   const LayerRows& to) {
    constexpr int kUnroll = 5;  // a run of 2 KiB and its scales, wherever in a line it begins
    const int k_units = static_cast<int>(pool.k_dim) / kCount;
    const int row_units = static_cast<int>(pool.k_dim + pool.v_dim) / kCount;
    const int units = from.count * row_units;
    const int lane = device::lane_index();
    const Held* const numbers = reinterpret_cast<const Held*>(numbers_of(pool, from, 0));
    const int before = units_before(pool, from);
    const int skew = units_into_line(numbers - before);
    float scales = before == 0 && lane < 2 * from.count ? scales_of(from)[lane] : 0;
    for (int begin = -before - skew; begin < units; begin += kUnroll * device::kWarpSize) {
      Held held[kUnroll];
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) {
        const int i = begin + u * device::kWarpSize + lane;
        if (i >= -before && i < units) held[u] = numbers[i];
      }
      if constexpr (kIsWide) {
        if (begin < 0 && before > 0) scales = spread_scales(held[0], skew);
      }
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) {
        const int i = begin + u * device::kWarpSize + lane;
        const int layer = i < 0 ? 0 : min(i / row_units, from.count - 1);
        const int unit = i - layer * row_units;
        const float scale = device::from_lane(scales, 2 * layer + (unit < k_units ? 0 : 1));
        if (i < 0 || i >= units) continue;
        std::byte* const row = to.first + layer * to.layer_bytes + (unit < k_units ? 0 : to.v_gap);
        reinterpret_cast<Elements*>(row)[unit] =
            device::elements_of<T>(reinterpret_cast<const Numbers&>(held[u]), scale);
      }
    }
  }

  /// A part of `units` units, none for lanes that only take part in the reduction.
  static __device__ void store_part(const Elements* from, int units, int lane, int lanes,
                                    Numbers* to, float* scale_to) {
    std::uint32_t largest = 0;
    for (int unit = lane; unit < units; unit += lanes) {
      const Elements elements = from[unit];
#pragma unroll
      for (int e = 0; e < kCount; ++e) {
        largest = max(largest, device::magnitude_bits(elements[e]));
      }
    }
    largest = device::group_max_bits(largest, lanes);
    const bool is_finite = device::is_finite_bits(largest);
    const float scale = is_finite ? device::scale_of(largest, H{}) : device::quiet_nan();
    const float inverse = device::reciprocal(scale);
    for (int unit = lane; unit < units; unit += lanes) {
      const Elements elements = from[unit];
      Numbers numbers{};
#pragma unroll
      for (int e = 0; is_finite && e < kCount; ++e) {
        device::store_number<T>(elements[e], inverse, numbers.element[e]);
      }
      to[unit] = numbers;
    }
    if (lane == 0 && units > 0) *scale_to = scale;
  }
};

/// Calls body.operator()<Rows>() with what moves the pool's rows; `uses_host`: to or from the host.
template <class Body>
void dispatch_rows(const KVPoolView& pool, bool uses_host, Body&& body) {
  if (!pool.run.is_lossy || !uses_host) {
    return dispatch_unit(pool, [&]<class Unit>() { body.template operator()<ExactRows<Unit>>(); });
  }
  constexpr int kWide = device::kVecBytes;  // numbers of a byte each
  const bool is_wide = pool.k_dim % kWide == 0 && pool.v_dim % kWide == 0;
  dispatch_device_dtype(pool.dtype, [&]<class T>() {
    const auto with = [&]<class H>() {
      is_wide ? body.template operator()<LossyRows<T, H, kWide>>()
              : body.template operator()<LossyRows<T, H, 1>>();
    };
    pool.run.dtype == DType::f8_e4m3 ? with.template operator()<device::E4m3>()
                                     : with.template operator()<device::Int8>();
  });
}

}  // namespace spectx::cu
