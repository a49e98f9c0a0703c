// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "mma.cuh"

// Tensor cores by the instructions of a warpgroup (four neighbouring warps), as sm_90a alone has
// them. They run beside the warpgroup until it waits for them; what they read from shared memory
// is of the asynchronous proxy.
namespace spectx::cu::device {

/// Makes the thread's writes to shared memory visible to the asynchronous proxy.
__device__ inline void publish_to_async_proxy() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
/// Before products: registers that they read or add to have been written.
__device__ inline void begin_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
/// Ends a group: the products that were begun since the group before.
__device__ inline void end_product_group() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
/// Waits for all groups but the last kGroups; their sums may be read behind settle().
template <int kGroups>
__device__ void wait_product_groups() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kGroups) : "memory");
}
/// What follows reads the sums no earlier than here.
template <int kCount>
__device__ void settle(float (&sums)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(sums[i])::"memory");
}

/// Rows of 64 elements of 2 bytes in shared memory, at a multiple of 1,024 bytes: vector v of row r
/// lies where v ^ (r % 8) would. An operand's element 0 is at `first`; `panel_bytes` lie between
/// panels of 64 columns where the columns are not what is summed over.
__device__ inline std::uint64_t operand(const void* first, std::uint32_t panel_bytes) {
  constexpr std::uint64_t kSwizzle = std::uint64_t{1} << 62;
  constexpr std::uint64_t kEightRows = std::uint64_t{1024 >> 4} << 32;
  const auto address = static_cast<std::uint32_t>(__cvta_generic_to_shared(first));
  return kSwizzle | kEightRows | (std::uint64_t{panel_bytes >> 4} << 16) |
         ((address & 0x3ffffU) >> 4);
}

// The sums of an instruction as its operands: their places in its text, and themselves.
#define SPECTX_PLACES_32                                                   \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define SPECTX_PLACES_64                                                               \
  SPECTX_PLACES_32                                                                     \
  ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define SPECTX_SUMS_8(s, i)                                                                   \
  "+f"(s[i]), "+f"(s[i + 1]), "+f"(s[i + 2]), "+f"(s[i + 3]), "+f"(s[i + 4]), "+f"(s[i + 5]), \
      "+f"(s[i + 6]), "+f"(s[i + 7])
#define SPECTX_SUMS_32(s, i) \
  SPECTX_SUMS_8(s, i), SPECTX_SUMS_8(s, i + 8), SPECTX_SUMS_8(s, i + 16), SPECTX_SUMS_8(s, i + 24)
#define SPECTX_SUMS_64(s) SPECTX_SUMS_32(s, 0), SPECTX_SUMS_32(s, 32)

// Sums of 64 rows: warp w has rows 16 w to 16 w + 15, and of 8 columns n what MmaSum says, at 4 n.
// T is the operands' type, `type` its name in the instruction.
#define SPECTX_WARPGROUP_PRODUCTS(T, type)                                                         \
  /* s [64, 128] (+)= a [64, 16] b^T, b [128, 16], both dense along the 16. */                     \
  __device__ inline void multiply_rows(float(&s)[64], std::uint64_t a, std::uint64_t b, bool adds, \
                                       T) {                                                        \
    asm volatile(                                                                                  \
        "{.reg .pred p; setp.ne.b32 p, %66, 0; "                                                   \
        "wgmma.mma_async.sync.aligned.m64n128k16.f32." type "." type " {" SPECTX_PLACES_64         \
        "}, %64, %65, p, 1, 1, 0, 0;}"                                                             \
        : SPECTX_SUMS_64(s)                                                                        \
        : "l"(a), "l"(b), "r"(static_cast<int>(adds)));                                            \
  }                                                                                                \
  /* s [64, n] += a [64, 16] b, b [16, n] dense along n; a is of the lane's warp. */               \
  __device__ inline void add_rows(float(&s)[64], const MmaLeft& a, std::uint64_t b, T) {           \
    asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32." type "." type                      \
                 " {" SPECTX_PLACES_64 "}, {%64, %65, %66, %67}, %68, 1, 1, 1, 1;"                 \
                 : SPECTX_SUMS_64(s)                                                               \
                 : "r"(a.part[0]), "r"(a.part[1]), "r"(a.part[2]), "r"(a.part[3]), "l"(b));        \
  }                                                                                                \
  __device__ inline void add_rows(float(&s)[32], const MmaLeft& a, std::uint64_t b, T) {           \
    asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32." type "." type " {" SPECTX_PLACES_32 \
                 "}, {%32, %33, %34, %35}, %36, 1, 1, 1, 1;"                                       \
                 : SPECTX_SUMS_32(s, 0)                                                            \
                 : "r"(a.part[0]), "r"(a.part[1]), "r"(a.part[2]), "r"(a.part[3]), "l"(b));        \
  }

SPECTX_WARPGROUP_PRODUCTS(__half, "f16")
SPECTX_WARPGROUP_PRODUCTS(__nv_bfloat16, "bf16")

#undef SPECTX_WARPGROUP_PRODUCTS
#undef SPECTX_SUMS_64
#undef SPECTX_SUMS_32
#undef SPECTX_SUMS_8
#undef SPECTX_PLACES_64
#undef SPECTX_PLACES_32

/// Barrier `id` (1 to 15) of the block: waits until `threads` threads have come or signed.
__device__ inline void meet(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
__device__ inline void sign(int id, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

/// The warpgroup gives registers back, or takes what others gave.
template <int kRegisters>
__device__ void keep_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

}  // namespace spectx::cu::device
