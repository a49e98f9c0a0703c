// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "convert.cuh"

// Tensor cores by their warp-wide instructions, and copies to shared memory that need no register;
// both as sm_80 has them.
namespace spectx::cu::device {

/// A 16 x 16 tile of the left operand, 16 x 8 of the right (k x n), 16 x 8 floats of a sum. A lane
/// holds of a sum the elements (lane / 4 + 8 i, lane % 4 * 2 + j), i and j in {0, 1}, at 2 i + j.
struct MmaLeft {
  std::uint32_t part[4];
};
struct MmaRight {
  std::uint32_t part[2];
};
struct MmaSum {
  float value[4] = {};
};

__device__ inline void multiply_add(MmaSum& sum, const MmaLeft& a, const MmaRight& b, __half) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
      "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(sum.value[0]), "+f"(sum.value[1]), "+f"(sum.value[2]), "+f"(sum.value[3])
      : "r"(a.part[0]), "r"(a.part[1]), "r"(a.part[2]), "r"(a.part[3]), "r"(b.part[0]),
        "r"(b.part[1]));
}
__device__ inline void multiply_add(MmaSum& sum, const MmaLeft& a, const MmaRight& b,
                                    __nv_bfloat16) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
      "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(sum.value[0]), "+f"(sum.value[1]), "+f"(sum.value[2]), "+f"(sum.value[3])
      : "r"(a.part[0]), "r"(a.part[1]), "r"(a.part[2]), "r"(a.part[3]), "r"(b.part[0]),
        "r"(b.part[1]));
}

/// Two floats as two neighbours of a part, the first in the low half.
__device__ inline std::uint32_t pack(float low, float high, __half) {
  const __half2 both = __floats2half2_rn(low, high);
  return reinterpret_cast<const std::uint32_t&>(both);
}
__device__ inline std::uint32_t pack(float low, float high, __nv_bfloat16) {
  const __nv_bfloat162 both = __floats2bfloat162_rn(low, high);
  return reinterpret_cast<const std::uint32_t&>(both);
}

/// Four 8 x 8 matrices of 2-byte elements: lane i gives the address of row i % 8 of matrix i / 8,
/// and gets of each the elements 2 * (lane % 4) and the next of row lane / 4.
__device__ inline void load_matrices(const void* row, std::uint32_t (&part)[4]) {
  const auto address = static_cast<std::uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(part[0]), "=r"(part[1]), "=r"(part[2]), "=r"(part[3])
               : "r"(address)
               : "memory");
}
/// The same of the transposed matrices.
__device__ inline void load_matrices_transposed(const void* row, std::uint32_t (&part)[4]) {
  const auto address = static_cast<std::uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(part[0]), "=r"(part[1]), "=r"(part[2]), "=r"(part[3])
               : "r"(address)
               : "memory");
}

/// Starts to copy 16 bytes from global to shared memory.
__device__ inline void start_copy(void* shared, const void* global) {
  const auto address = static_cast<std::uint32_t>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(address), "l"(global) : "memory");
}
/// The same, or 16 zeros.
__device__ inline void start_copy_or_zeros(void* shared, const void* global, bool is_copy) {
  const auto address = static_cast<std::uint32_t>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(global),
               "r"(is_copy ? 16 : 0)
               : "memory");
}
/// Ends a group: the copies that this thread has started since the group before.
__device__ inline void end_copy_group() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/// Waits for all groups but the last kGroups.
template <int kGroups>
__device__ void wait_copy_groups() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kGroups) : "memory");
}
/// Waits for every copy that this thread has started.
__device__ inline void wait_copies() { asm volatile("cp.async.wait_all;" ::: "memory"); }

/// The transposed 8 x 8 matrix of 2-byte elements of which a lane holds the elements
/// 2 * (lane % 4) and the next of row lane / 4.
__device__ inline std::uint32_t transpose(std::uint32_t part) {
  std::uint32_t transposed;
  asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(transposed) : "r"(part));
  return transposed;
}

/// 2^x.
__device__ inline float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

}  // namespace spectx::cu::device
