// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

#include "spectx/dispatch.hpp"
#include "spectx/kv_view.hpp"

namespace spectx::cpu {

namespace detail {

/// Bits of the largest magnitude; at least those of infinity: not all are finite.
template <class T>
std::uint32_t largest_bits(const T* values, index_t count) noexcept {
  std::uint32_t largest = 0;
  for (index_t i = 0; i < count; ++i) {
    largest = std::max(largest, std::bit_cast<std::uint32_t>(to_float(values[i])) & 0x7fffffffU);
  }
  return largest;
}

constexpr std::uint32_t kInfinityBits = 0x7f800000;
constexpr std::uint32_t kSmallestScaleBits = 0x00800000;  // 2^-126, so that 1 / scale is finite

/// Scale of a part, of the bits of its largest magnitude; of HostRun's two rules.
template <class H>
float scale_of(std::uint32_t largest) noexcept;

template <>
inline float scale_of<f8_e4m3_t>(std::uint32_t largest) noexcept {
  if (largest >= kInfinityBits) return std::numeric_limits<float>::quiet_NaN();
  // 448 = 1.75 * 2^8: the exponent less 8, one more if the significand is above 1.75.
  const std::uint32_t exponent = (largest + 0x1fffffU) >> 23;
  return std::bit_cast<float>((std::max(exponent, 9U) - 8) << 23);
}
template <>
inline float scale_of<std::int8_t>(std::uint32_t largest) noexcept {
  if (largest >= kInfinityBits) return std::numeric_limits<float>::quiet_NaN();
  const float scale = std::bit_cast<float>(largest) / 127;
  return std::bit_cast<float>(
      std::max(std::bit_cast<std::uint32_t>(scale) & ~0x7fU, kSmallestScaleBits));
}

/// x / scale as the stored type, `inverse` 1 / scale.
template <class T>
void store_number(float x, float inverse, f8_e4m3_t& to) noexcept {
  // What e4m3 would round up past T's largest number comes back as an infinity.
  constexpr float kMost = std::is_same_v<T, half_t> ? 0x1.ep15F : 0x1.ep127F;
  to = from_float<f8_e4m3_t>(std::clamp(x, -kMost, kMost) * inverse);
}
template <class T>
void store_number(float x, float inverse, std::int8_t& to) noexcept {
  to = static_cast<std::int8_t>(std::clamp(std::rint(x * inverse), -127.0F, 127.0F));
}

template <class T, class H>
void store_part(const T* from, index_t count, H* to, float& scale) noexcept {
  scale = scale_of<H>(largest_bits(from, count));
  const float inverse = 1 / scale;
  if (std::isnan(scale)) {
    std::memset(to, 0, static_cast<std::size_t>(count));
    return;
  }
  for (index_t i = 0; i < count; ++i) store_number<T>(to_float(from[i]), inverse, to[i]);
}

template <class H, class T>
void load_part(const H* from, float scale, index_t count, T* to) noexcept {
  for (index_t i = 0; i < count; ++i) {
    to[i] = from_float<T>(to_float(from[i]) * scale);
  }
}

}  // namespace detail

/// A row's K and V, each with its V so many bytes after its K.
inline void copy_row(const KVPoolView& pool, const std::byte* from, index_t from_v, std::byte* to,
                     index_t to_v) noexcept {
  const auto bytes = [](index_t n) { return static_cast<std::size_t>(n); };
  if (from_v == pool.k_bytes && to_v == pool.k_bytes) {
    std::memcpy(to, from, bytes(pool.row_bytes));
    return;
  }
  std::memcpy(to, from, bytes(pool.k_bytes));
  std::memcpy(to + to_v, from + from_v, bytes(pool.row_bytes - pool.k_bytes));
}

/// Rows on their way between the device's pages and runs of the host tier.
class HostRows {
 public:
  explicit HostRows(const KVPoolView& pool) noexcept : pool_(&pool) {}

  /// A row of one layer into its run.
  void store(const std::byte* row, std::byte* run, index_t layer) const {
    const HostRun& to = pool_->run;
    if (!to.is_lossy) {
      copy_row(*pool_, row, pool_->strides.v, run + layer * to.row_bytes, pool_->k_bytes);
      return;
    }
    dispatch([&]<class T, class H>() {
      float scales[2];
      H* const numbers = reinterpret_cast<H*>(run + to.first_row + layer * to.row_bytes);
      const T* const k = reinterpret_cast<const T*>(row);
      const T* const v = reinterpret_cast<const T*>(row + pool_->strides.v);
      detail::store_part(k, pool_->k_dim, numbers, scales[0]);
      detail::store_part(v, pool_->v_dim, numbers + pool_->k_dim, scales[1]);
      std::memcpy(run + layer * HostRun::kScaleBytes, scales, sizeof scales);
    });
  }
  /// A row of one layer out of its run.
  void load(const std::byte* run, index_t layer, std::byte* row) const {
    const HostRun& from = pool_->run;
    if (!from.is_lossy) {
      copy_row(*pool_, run + layer * from.row_bytes, pool_->k_bytes, row, pool_->strides.v);
      return;
    }
    dispatch([&]<class T, class H>() {
      float scales[2];
      std::memcpy(scales, run + layer * HostRun::kScaleBytes, sizeof scales);
      const H* const numbers =
          reinterpret_cast<const H*>(run + from.first_row + layer * from.row_bytes);
      T* const k = reinterpret_cast<T*>(row);
      T* const v = reinterpret_cast<T*>(row + pool_->strides.v);
      detail::load_part(numbers, scales[0], pool_->k_dim, k);
      detail::load_part(numbers + pool_->k_dim, scales[1], pool_->v_dim, v);
    });
  }

 private:
  template <class Body>
  void dispatch(Body&& body) const {
    dispatch_dtype(pool_->dtype, [&]<class T>() {
      pool_->run.dtype == DType::f8_e4m3 ? body.template operator()<T, f8_e4m3_t>()
                                         : body.template operator()<T, std::int8_t>();
    });
  }

  const KVPoolView* pool_;
};

}  // namespace spectx::cpu
