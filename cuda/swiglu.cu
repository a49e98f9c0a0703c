// SPDX-License-Identifier: Apache-2.0
// out = gate / (1 + exp(-gate)) * up
// Moves 3 rows * dim * activation bytes: memory bound.
#include "elementwise.cuh"

namespace spectx::cu {
namespace {

struct Swiglu {
  __device__ static float apply(float gate, float up) { return gate / (1 + expf(-gate)) * up; }
};

}  // namespace

void launch_swiglu(const SwigluArgs& a, const Launch& on) {
  launch_elementwise<Swiglu>(a.gate, a.up, a.out, on);
}

}  // namespace spectx::cu
